"""Rectified synthetic pairs: two equal cameras side by side before a drawn scene.

The renderer is that of `data.synthetic.render`, which knows depth exactly, so disparity is
focal * baseline / depth without error. What differs from pairs for matching: equal intrinsics and
orientation, one light for both views, surfaces that stereo finds hard (bars thinner than a cell,
boards without texture or with one that repeats), and the errors a calibration leaves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from data.config import Eighths, Strength, SyntheticConfig
from data.synthetic.cameras import Cameras, look_at, probe
from data.synthetic.dataset import TextureBank, assemble, texture_bank
from data.synthetic.layouts import LAYOUTS, Draft, Layout, tiled, whole
from data.synthetic.photometry import Photometry, Response
from data.synthetic.scene import SceneBatch
from data.synthetic.stereo_truth import Misalignment, render_stereo
from matcher.tasks.stereo.structures import StereoPair
from matcher.validation.checked import NotNegative, Positive, Share, checked, invalid

MIX = {"plane": 0.1, "room": 0.35, "street": 0.25, "clutter": 0.3}
ATTEMPTS = 20


@checked("data.stereo.")
class StereoSceneConfig:
    """What is drawn."""

    sizes: Annotated[
        tuple[tuple[Eighths, Eighths], ...],
        Field(min_length=1, description="a list of (height, width), multiples of 8"),
    ] = ((128, 256), (192, 384), (256, 512))
    """(H, W) of the pairs."""
    shares: tuple[Annotated[float, Field(ge=0)], ...] = (0.75, 0.15, 0.1)
    """Relative frequency of each size."""
    group: Positive = 4
    """Consecutive pairs of the same size: a batch of that many can be stacked."""
    pairs: Positive = 10_000
    """Pairs an epoch, a multiple of `group`."""
    disparity: Annotated[tuple[Share, Share], Field(description="(low, high) in 0..1")] = (
        0.04,
        0.33,
    )
    """Range, as a part of the width, from which the disparity of the near scene is drawn."""
    photos: str | None = None
    """Folder of photographs for texture; null paints with procedural textures alone."""
    texture_side: Annotated[int, Field(ge=32, multiple_of=32)] = 384
    """Shorter side of the textures in pixels."""
    procedural: Positive = 270
    """Number of procedural textures."""
    texture_seed: NotNegative = 0
    """Seed of the procedural textures; another one shows none that training has seen."""
    strength: Strength = 0.7
    """Strength of the photometric changes; 0 turns them off."""
    misalignment: Annotated[float, Field(ge=0, le=5)] = 0.5
    """Largest vertical error of a pair in pixels at a width of 256; 0: perfectly rectified."""
    seed: NotNegative = 0
    """Seed of the scenes; a training replaces it by its own."""

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.sizes) or not sum(self.shares) > 0:
            raise invalid("data.stereo.shares", self.shares, "a weight for each size")
        if self.pairs % self.group:
            raise invalid("data.stereo.pairs", self.pairs, f"a multiple of {self.group}")
        low, high = self.disparity
        if not 0 < low < high < 1:
            raise invalid("data.stereo.disparity", self.disparity, "(low, high) in 0..1")


class StereoScenes(Dataset[StereoPair]):
    """`config.pairs` rendered pairs an epoch, drawn anew each epoch, each a batch of 1.

    A pair depends on (seed, epoch, index) and the textures alone.
    """

    def __init__(self, config: StereoSceneConfig) -> None:
        self.config = config
        self.bank = texture_bank(
            config.photos, None, config.texture_side, config.procedural, config.texture_seed
        )

    def __len__(self) -> int:
        return self.config.pairs

    def __getitem__(self, key: int | tuple[int, int]) -> StereoPair:
        """The pair `index` of the first epoch, or of the epoch in `key` = (epoch, index)."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng((self.config.seed, 22, epoch, index))
        return render_stereo(*draw_stereo(rng, self.config, self.bank, self.size_at(epoch, index)))

    def size_at(self, epoch: int, index: int) -> tuple[int, int]:
        """(H, W) of a pair, the same for all of its group."""
        config = self.config
        by_group = np.random.default_rng((config.seed, 21, epoch, index // config.group))
        shares = np.array(config.shares) / sum(config.shares)
        return config.sizes[int(by_group.choice(len(shares), p=shares))]


class Rig(NamedTuple):
    """Two cameras side by side."""

    cameras: Cameras
    focal: float
    baseline: float


def draw_stereo(
    rng: np.random.Generator,
    config: StereoSceneConfig,
    bank: TextureBank,
    size: tuple[int, int],
) -> tuple[SceneBatch, Misalignment]:
    """A scene before a rig, and the calibration error of its right view."""
    kinds = list(MIX)
    kind = kinds[int(rng.choice(len(kinds), p=np.array(list(MIX.values()))))]
    layout, rig = furnish(rng, LAYOUTS[kind](rng), size, config.disparity)
    for _ in range(ATTEMPTS):
        if rig is not None:
            break
        layout, rig = furnish(rng, LAYOUTS[kind](rng), size, config.disparity)
    if rig is None:
        raise RuntimeError("no rig stands free in this scene")
    drawing = SyntheticConfig(size=size, strength=config.strength)
    scene = assemble(rng, drawing, bank, layout, rig.cameras, (kind, kind))
    error = config.misalignment * size[1] / 256 * (rng.random() < 0.6)
    shift = error * float(np.clip(rng.normal() * 0.4, -1, 1))
    angle = error * float(np.clip(rng.normal() * 0.4, -1, 1)) / size[1]
    return alike(rng, scene), Misalignment(shift, angle)


def furnish(
    rng: np.random.Generator, draft: Draft, size: tuple[int, int], disparity: tuple[float, float]
) -> tuple[Layout, Rig | None]:
    """The draft, finished with what stereo finds hard, and a rig before it; None where none stands
    free."""
    pose = look_at(rng, draft.eye[None], draft.target[None])[0]
    focal = 0.5 * size[1] / np.tan(np.radians(rng.uniform(22, 88)) / 2)
    if rng.random() < 0.7:
        obstruct(rng, draft, pose, size[1] / focal)
    K = np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]])
    K[:2, 2] += rng.normal(size=2) * 0.04 * size[1]
    layout = draft.finished()
    depth, _ = probe(layout, K[None], pose[None], size)
    seen = depth[depth > 0]
    if len(seen) < 0.9 * depth.numel() or seen.min() < 0.15:
        return layout, None
    low, high = disparity
    wanted = rng.uniform(low, high) * size[1]
    baseline = float(seen.quantile(0.05)) * wanted / focal
    right = pose.copy()
    right[0, 3] -= baseline
    other, _ = probe(layout, K[None], right[None], size)
    free = float((other > 0.15).float().mean()) > 0.9
    eye = draft.eye + baseline * pose[0, :3]
    free &= bool((eye > draft.low - 0.3).all() and (eye < draft.high + 0.3).all())
    cameras = Cameras(np.stack([K, K]), np.stack([pose, right]), 1.0)
    return layout, Rig(cameras, float(focal), baseline) if free else None


def obstruct(rng: np.random.Generator, draft: Draft, pose: np.ndarray, opening: float) -> None:
    """Put bars and boards between the camera and what it looks at.

    Args:
        draft: receives them.
        pose: (4, 4) world-to-camera.
        opening: width of the view at depth 1.
    """
    first = len(draft.textures)
    draft.textures = (*draft.textures, "plain", "facade", "any", "photo")
    reach = max(float(np.linalg.norm(draft.target - draft.eye)), 0.8)
    axes = pose[:3, :3]

    def place() -> tuple[np.ndarray, float]:
        depth = reach * rng.uniform(0.35, 0.95)
        x, y = rng.uniform(-0.5, 0.5) * opening, rng.uniform(-0.3, 0.3) * opening
        return draft.eye + depth * np.array([x, y, 1]) @ axes, depth * opening

    for _ in range(int(rng.integers(0, 5))):
        center, width = place()
        angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
        along = np.cos(angle) * axes[0] + np.sin(angle) * axes[1]
        across = np.cos(angle) * axes[1] - np.sin(angle) * axes[0]
        length, thick = rng.uniform(0.1, 0.6) * width, rng.uniform(0.004, 0.02) * width
        tilt = axes[2] * rng.normal() * 0.3
        slot = first + int(rng.choice([0, 0, 2, 3]))
        paint = tiled(
            rng, slot, (length / 2, thick / 2), 0.3 * width, rng.uniform(0.3, 1), rng.uniform(0, 2)
        )
        draft.rect(center, (along + tilt) * length, across * thick, paint)
    for _ in range(int(rng.integers(0, 4))):
        center, width = place()
        u, v = (axes[i] + axes[2] * rng.normal() * 0.4 for i in (0, 1))
        half = rng.uniform(0.04, 0.25, 2) * width
        slot = first + int(rng.choice([0, 1, 1, 2, 3]))
        pitch = rng.uniform(0.1, 0.6) * width
        once, contrast = rng.random() < 0.4, rng.uniform(0.3, 1)
        if once:
            paint = whole(rng, slot)._replace(contrast=contrast)
        else:
            paint = tiled(rng, slot, (half[0], half[1]), pitch, contrast)
        draft.rect(center, u * half[0], v * half[1], paint)


def alike(rng: np.random.Generator, scene: SceneBatch) -> SceneBatch:
    """The same scene with a right view that was taken at the same moment as the left: one lamp,
    and most of the light, the response and the blur of the left."""
    nearness = float(rng.uniform(0.6, 1.0)) if rng.random() < 0.8 else 1.0

    def towards(views: Tensor) -> Tensor:
        left, right = views.unbind(1)
        return torch.stack([left, torch.lerp(right, left, nearness)], dim=1)

    photometry = scene.photometry
    drawn, near = (
        Response(*values.unbind(-1))
        for values in (photometry.response, towards(photometry.response))
    )
    response = near._replace(
        noise_start=drawn.noise_start, jpeg_step=drawn.jpeg_step[:, :1].expand(-1, 2)
    )
    own_blur = rng.random() < 0.1
    blur = photometry.blur if own_blur else photometry.blur[:, :1].expand(-1, 2, -1)
    return replace(
        scene,
        rect_material=scene.rect_material[:, :1].expand(-1, 2, -1, -1),
        cylinder_material=scene.cylinder_material[:, :1].expand(-1, 2, -1, -1),
        photometry=Photometry(towards(photometry.light), torch.stack(response, dim=-1), blur),
    )
