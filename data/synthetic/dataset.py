"""Synthetic scenes: the default training data, without any download.

A scene depends on (seed, epoch, index) and the texture bank alone, whatever the batch, the number
of workers or the order. Scenes are drawn on the CPU as small tensors; `render` turns a batch of
them into an `ImagePair` on the training device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import Dataset

from data.config import SyntheticConfig
from data.synthetic.cameras import Cameras, choose_cameras
from data.synthetic.layouts import LAYOUTS, Layout, Paint, TextureKind
from data.synthetic.photometry import draw_photometry
from data.synthetic.photos import load_photos
from data.synthetic.scene import Material, SceneBatch
from data.synthetic.textures import KINDS, procedural_textures, with_mips


class SyntheticScenes(Dataset[SceneBatch]):
    """`config.pairs` scenes an epoch, drawn anew each epoch."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        photos, own = (config.photos, config.photo_limit), (config.procedural, config.texture_seed)
        self.bank = texture_bank(*photos, config.texture_side, *own)

    def __len__(self) -> int:
        return self.config.pairs

    def __getitem__(self, key: int | tuple[int, int]) -> SceneBatch:
        """The scene `index` of the first epoch, or of the epoch in `key` = (epoch, index)."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng((self.config.seed, epoch, index))
        return draw_scene(rng, self.config, self.bank, f"{epoch}/{index}")


@dataclass(frozen=True)
class TextureBank:
    """(N, S, 3/2 S) uint8 textures to draw from, with mip levels; there may be no photographs."""

    photos: np.ndarray
    procedural: np.ndarray

    def draw(self, rng: Generator, kind: TextureKind) -> np.ndarray:
        """(S, 3/2 S) of a kind."""
        photo = kind == "photo" or (kind in ("any", "facade") and rng.random() < 0.4)
        if photo and len(self.photos):
            texture = self.photos[rng.integers(len(self.photos))]
        else:
            turn = {"facade": (2, 3, 4), "plain": (8,)}.get(kind, tuple(range(8)))
            rounds = max(1, len(self.procedural) // len(KINDS))
            chosen = int(rng.integers(rounds)) * len(KINDS) + int(rng.choice(turn))
            texture = self.procedural[chosen % len(self.procedural)]
        return 255 - texture if rng.random() < 0.1 else texture


@lru_cache(maxsize=2)
def texture_bank(
    photos: str | None, limit: int | None, side: int, procedural: int, seed: int
) -> TextureBank:
    empty = np.zeros((0, side, side), np.uint8)
    pictures = load_photos(photos, side, limit) if photos else empty
    return TextureBank(with_mips(pictures), with_mips(procedural_textures(procedural, side, seed)))


def draw_scene(rng: Generator, config: SyntheticConfig, bank: TextureBank, name: str) -> SceneBatch:
    """One scene, a batch of 1."""
    kinds = list(config.mix)
    weights = np.array([config.mix[kind] for kind in kinds], float)
    kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    low, high = config.overlap
    wanted = rng.uniform(low, high)
    rolls = config.roll and config.roll_share and rng.random() < config.roll_share
    roll = float(np.radians(rng.uniform(-config.roll, config.roll))) if rolls else 0.0
    drawn: list[tuple[Layout, Cameras]] = []
    while len(drawn) < 10:
        layout = LAYOUTS[kind](rng).finished()
        cameras = choose_cameras(rng, layout, config.size, wanted, roll)
        drawn.append((layout, cameras))
        if low <= cameras.overlap <= high and abs(cameras.overlap - wanted) < 0.1:
            break
    best = min(drawn, key=lambda scene: abs(scene[1].overlap - wanted))
    return assemble(rng, config, bank, *best, (f"{kind}/{name}/0", f"{kind}/{name}/1"))


def assemble(
    rng: Generator,
    config: SyntheticConfig,
    bank: TextureBank,
    layout: Layout,
    cameras: Cameras,
    name: tuple[str, str],
) -> SceneBatch:
    """Tensors of what the two cameras can see of the layout."""
    kept = np.flatnonzero(in_view(layout.rects, cameras, config.size))
    rects, flat_paints = layout.rects[kept], [layout.rect_paints[i] for i in kept]
    round_paints = layout.cylinder_paints
    slots = sorted({paint.slot for paint in (*flat_paints, *round_paints)})
    textures = np.stack([bank.draw(rng, layout.textures[slot]) for slot in slots])
    normals = np.cross(rects[..., 0], rects[..., 1])
    light = lamp_light(rng, normals) if config.strength > 0 else np.ones((2, len(rects)))
    return SceneBatch(
        rects=_batch(rects),
        rect_material=_batch(materials(flat_paints, slots, light)),
        cylinders=_batch(layout.cylinders),
        cylinder_shape=_batch(layout.cylinder_shapes),
        cylinder_material=_batch(materials(round_paints, slots, np.ones((2, len(round_paints))))),
        textures=torch.from_numpy(textures)[None],
        K=_batch(cameras.K),
        pose=torch.from_numpy(cameras.pose)[None],
        photometry=draw_photometry(rng, config.strength),
        counts=torch.tensor([[len(rects), len(round_paints), len(textures)]]),
        size=config.size,
        names=(name,),
    )


def _batch(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))[None]


def in_view(rects: np.ndarray, cameras: Cameras, size: tuple[int, int]) -> np.ndarray:
    """(P,) bool: rectangles that are not wholly outside one side of both pictures."""
    u, v, c = np.moveaxis(rects, -1, 0)
    corners = np.stack([c + i * u + j * v for i in (-1, 1) for j in (-1, 1)])
    seen = np.zeros(len(rects), bool)
    for K, pose in zip(cameras.K, cameras.pose, strict=True):
        x, y, z = np.moveaxis((corners @ pose[:3, :3].T + pose[:3, 3]) @ K.T, -1, 0)
        height, width = size
        beyond = (z <= 0, x < -z, y < -z, x > width * z, y > height * z)
        seen |= ~np.any([side.all(axis=0) for side in beyond], axis=0)
    return seen


def lamp_light(rng: Generator, normals: np.ndarray) -> np.ndarray:
    """(2, N) brightness of faces with (N, 3) `normals` under a far lamp, which may stand elsewhere
    in each view."""
    lamp = rng.normal(size=(2, 3))
    if rng.random() < 0.5:
        lamp[1] = lamp[0]
    lamp /= np.linalg.norm(lamp, axis=1, keepdims=True)
    length = np.linalg.norm(normals, axis=1)
    ambient = rng.uniform(0.5, 1.0)
    return ambient + (1 - ambient) * np.abs(lamp @ np.transpose(normals)) / length


def materials(paints: Sequence[Paint], slots: Sequence[int], light: np.ndarray) -> np.ndarray:
    """(2, N, 7) of `Material` of N paints under (2, N) `light`; a slot becomes its place among
    `slots`, the textures of the scene."""
    values = [
        [lit(paint, slots.index(paint.slot), b) for paint, b in zip(paints, view, strict=True)]
        for view in light.tolist()
    ]
    return np.array(values, float).reshape(2, len(paints), len(Material._fields))


def lit(paint: Paint, slot: int, light: float) -> Material[float]:
    _, *place, contrast, brightness = paint
    gain, offset = contrast * (brightness * light), 0.5 * (brightness * light) * (1 - contrast)
    return Material(slot, *place, gain=gain, offset=offset)
