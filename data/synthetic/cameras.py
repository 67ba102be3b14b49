"""Two cameras that share a wanted part of a scene.

Several second cameras are proposed, all are rendered as tiny depth maps, and the one whose overlap
is nearest to the wanted one is taken: no scene is thrown away for bad luck with its camera.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from data.synthetic.layouts import Layout
from data.synthetic.render import Views, trace_depth

PROBE = (15, 20)
PROPOSALS = 8


class Cameras(NamedTuple):
    """Two views: (2, 3, 3) intrinsics, (2, 4, 4) world-to-camera poses, their overlap."""

    K: np.ndarray
    pose: np.ndarray
    overlap: float


def choose_cameras(
    rng: Generator, layout: Layout, size: tuple[int, int], wanted: float, roll: float
) -> Cameras:
    """The proposal whose overlap is nearest to `wanted`; overlap 0 where no view is usable.

    Views are of (H, W) `size`; the second camera turns about its optical axis by `roll` radians,
    clockwise.
    """
    K, pose = propose(rng, layout, size)
    if roll:
        pose[1:] = rotation_z(roll) @ pose[1:]
    depth, empty = probe(layout, K, pose, size)
    intrinsics, poses = torch.from_numpy(K), torch.from_numpy(pose)
    first, others = (depth[:1], intrinsics[:1]), (depth[1:], intrinsics[1:])
    T_0to1 = poses[1:] @ torch.linalg.inv(poses[:1])
    forward = visible(*first, *others, T_0to1, size)
    overlap = forward.minimum(visible(*others, *first, torch.linalg.inv(T_0to1), size))
    usable = (depth > 0).float().mean((1, 2)) > 0.8
    usable &= depth.flatten(1).quantile(0.1, dim=1) > 0.25
    usable &= depth.flatten(1).median(dim=1).values > 0.5
    usable &= empty.float().mean((1, 2)) < 0.7
    overlap = (overlap * (usable[1:] & usable[0])).numpy()
    best = int(np.abs(overlap - wanted).argmin())
    pair = [0, best + 1]
    return Cameras(K[pair], pose[pair], float(overlap[best]))


def propose(rng: Generator, layout: Layout, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(1 + PROPOSALS) cameras: the first of the layout, the others around what it looks at."""
    height, width = size
    count = 1 + PROPOSALS
    reach = layout.eye - layout.target
    distance = np.linalg.norm(reach)
    strength = np.linspace(0.25, 1.0, PROPOSALS)
    angles = strength * rng.normal(size=PROPOSALS) * 0.7
    ratio = 2 ** (strength * rng.uniform(-1.3, 1.3, PROPOSALS))
    shift = strength[:, None] * rng.normal(size=(2, PROPOSALS, 3)) * 0.3 * distance
    eyes = layout.target + (rotations_y(angles) @ reach) * ratio[:, None] + shift[0] * (0, 1, 0)
    eyes = np.concatenate([layout.eye[None], np.clip(eyes, layout.low, layout.high)])
    targets = np.concatenate([layout.target[None], layout.target + shift[1]])
    pose = look_at(rng, eyes, targets)
    opening = np.radians(rng.uniform(45, 80)) * np.exp(rng.normal(size=count) * 0.15)
    focal = 0.5 * width / np.tan(np.clip(opening, 0.5, 1.6) / 2)
    K = np.zeros((count, 3, 3))
    K[:, 0, 0] = focal
    K[:, 1, 1] = focal * np.exp(rng.normal(size=count) * 0.01)
    K[:, 0, 2] = (width - 1) / 2 + rng.normal(size=count) * 0.01 * width
    K[:, 1, 2] = (height - 1) / 2 + rng.normal(size=count) * 0.01 * height
    K[:, 2, 2] = 1
    return K, pose


def rotations_y(angles: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations by (N,) radians about the vertical."""
    c, s, zero, one = np.cos(angles), np.sin(angles), 0 * angles, 0 * angles + 1
    return np.stack([c, zero, s, zero, one, zero, -s, zero, c], axis=-1).reshape(-1, 3, 3)


def look_at(rng: Generator, eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(N, 4, 4) world-to-camera poses with a little roll, now and then a lot; (N, 3) points."""
    ahead = target - eye + 1e-6
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    right = np.stack([ahead[:, 2] + 1e-6, np.zeros(len(eye)), -ahead[:, 0]], axis=1)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    down = np.cross(ahead, right)
    roll = rng.normal(size=len(eye)) * np.where(rng.random(len(eye)) < 0.8, 0.1, 0.45)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    pose = np.zeros((len(eye), 4, 4))
    pose[:, :3, :3] = np.stack([c * right + s * down, c * down - s * right, ahead], axis=1)
    pose[:, :3, 3] = -np.einsum("nij,nj->ni", pose[:, :3, :3], eye)
    pose[:, 3, 3] = 1
    return pose


def rotation_z(angle: float) -> np.ndarray:
    """(4, 4) change of camera coordinates when the camera turns about its optical axis."""
    turn = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    turn[:2, :2] = [[c, s], [-s, c]]
    return turn


def probe(
    layout: Layout, K: np.ndarray, pose: np.ndarray, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """(V, h, w) coarse depth maps, and where they show nothing but a plain wall."""
    shapes = layout.cylinder_shapes.astype(np.float32)
    of_scene = (torch.from_numpy(each) for each in (layout.rects, layout.cylinders, shapes))
    of_views = (each.expand(len(K), *each.shape) for each in of_scene)
    views = Views(torch.from_numpy(K).float(), torch.from_numpy(pose), *of_views)
    depth, winner = trace_depth(views, *probe_pixels(size))
    plain = [layout.textures[paint.slot] == "plain" for paint in layout.rect_paints]
    return depth, torch.tensor([*plain, False])[winner]


def probe_pixels(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    y, x = ((torch.arange(n) + 0.5) * (m / n) - 0.5 for m, n in zip(size, PROBE, strict=True))
    return x, y


def visible(
    depth0: Tensor, K0: Tensor, depth1: Tensor, K1: Tensor, T_0to1: Tensor, size: tuple[int, int]
) -> Tensor:
    """(N,) fraction of the probed pixels of view 0 that view 1 sees; either may be one for all."""
    x, y = (t.double() for t in probe_pixels(size))
    (height, width), (rows, columns) = size, PROBE
    grid = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns), torch.ones(PROBE)])
    points = torch.linalg.inv(K0) @ grid.flatten(1) * depth0.flatten(1)[:, None]
    points = K1 @ (T_0to1[:, :3, :3] @ points + T_0to1[:, :3, 3:])
    z = points[:, 2].clamp(min=1e-6)
    column = ((points[:, 0] / z + 0.5) * (columns / width)).floor().clamp(-1, columns).long()
    row = ((points[:, 1] / z + 0.5) * (rows / height)).floor().clamp(-1, rows).long()
    inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & (points[:, 2] > 0)
    index = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
    depth = depth1.flatten(1).expand(len(index), -1).gather(1, index)
    return (inside & (depth0.flatten(1) > 0) & ((z - depth).abs() < 0.1 * depth)).double().mean(1)
