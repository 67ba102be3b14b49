"""Small folders of pairs for the evaluation tests, and methods that it can import."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from matcher.errors import MemoryLimitError
from matcher.geometry.cameras import warp_points
from matcher.structures import Matches
from tests.helpers.miniature import Frame, rendered_scenes, write_image


def relative_pose(frame0: Frame, frame1: Frame) -> np.ndarray:
    return frame1.pose @ np.linalg.inv(frame0.pose)


def pair_line(name0: str, name1: str, frame0: Frame, frame1: Frame) -> str:
    matrices = (frame0.K, frame1.K, relative_pose(frame0, frame1))
    values = [repr(float(v)) for m in matrices for v in np.asarray(m).flatten()]
    return " ".join([name0, name1, "0", "0", *values])


def pairs_folder(root: Path, count: int, scenes: int = 2) -> Path:
    """`count` pairs in SuperGlue's format, copies of `scenes` rendered ones."""
    frames, lines = rendered_scenes(scenes), []
    for i in range(count):
        pair = frames[i % scenes]
        names = [f"pair{i:03d}_{k}.png" for k in (0, 1)]
        for name, frame in zip(names, pair, strict=True):
            write_image(root / "images" / name, frame.gray)
        lines.append(pair_line(*names, *pair))
    (root / "pairs_with_gt.txt").write_text("\n".join(lines) + "\n")
    return root


def exact_matches(
    frame0: Frame, frame1: Frame, pixels: np.ndarray | None = None, count: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) pixels of both images that see the same point, at most `count`, from `pixels` of
    image 0 or random ones."""
    height, width = frame0.depth.shape
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, [width, height], (3000, 2))
    depth = frame0.depth[pixels[:, 1], pixels[:, 0]]
    tensors = (
        torch.from_numpy(np.asarray(v, np.float64))
        for v in (pixels, depth, frame0.K, frame1.K, relative_pose(frame0, frame1))
    )
    there, z = (v.numpy() for v in warp_points(*tensors))
    nearest = np.rint(there).astype(int)
    inside = (depth > 0) & (z > 0) & (nearest >= 0).all(1) & (nearest < [width, height]).all(1)
    seen = frame1.depth[tuple(nearest.clip(0, [width - 1, height - 1]).T[::-1])]
    keep = np.flatnonzero(inside & (np.abs(seen - z) < 0.01 * z))[:count]
    return pixels[keep].astype(np.float64), there[keep]


def starved(image0: np.ndarray, image1: np.ndarray) -> Matches:
    """A method that runs out of memory over the images of one scene, in a way of torch's."""
    if image0.mean() < image1.mean():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes.")
    return Matches.empty()


def refusing(image0: np.ndarray, image1: np.ndarray) -> Matches:
    """A method that meets an error of ours with every pair."""
    raise MemoryLimitError(131, "cpu", "out of memory with images of 9 x 9 pixels")


def grid_matches(image0: np.ndarray, image1: np.ndarray) -> Matches:
    """A method without any sense, but deterministic and quick: a slow one for kills."""
    time.sleep(0.01)
    height, width = (min(a, b) for a, b in zip(image0.shape[:2], image1.shape[:2], strict=True))
    grid = np.stack(np.meshgrid(np.arange(4, width, 12), np.arange(4, height, 12)), -1)
    points0 = torch.from_numpy(grid.reshape(-1, 2)).float()
    gray = torch.from_numpy(image1[..., 0].copy()).float()
    x, y = points0.long().T
    points1 = points0 + torch.stack([gray[y, x] / 25, gray[y, x] / 40], dim=1)
    return Matches(points0, points1, torch.linspace(1, 0, len(points0)))
