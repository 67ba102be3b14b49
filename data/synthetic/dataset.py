"""Synthetic scenes: the default training data, without any download.

A scene depends on (seed, epoch, index) and the texture bank alone, whatever the batch, the number
of workers or the order. Scenes are drawn on the CPU as small tensors; `render` turns a batch of
them into an `ImagePair` on the training device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.config import SyntheticConfig
from data.synthetic.cameras import Cameras, choose_cameras
from data.synthetic.layouts import LAYOUTS, Draft
from data.synthetic.photometry import WIDEST
from data.synthetic.photos import load_photos
from data.synthetic.render import render
from data.synthetic.scene import SceneBatch
from data.synthetic.textures import KINDS, procedural_textures, with_mips

__all__ = ["SceneBatch", "SyntheticConfig", "SyntheticScenes", "render"]

FACADE, PLAIN = (2, 3, 4), (8,)
LIGHT_GRID = (4, 5)


class SyntheticScenes(Dataset[SceneBatch]):
    """`config.pairs` scenes an epoch, drawn anew each epoch."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self.bank = texture_bank(
            config.photos,
            config.photo_limit,
            config.texture_side,
            config.procedural,
            config.texture_seed,
        )

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

    def draw(self, rng: np.random.Generator, kind: str) -> np.ndarray:
        """(S, 3/2 S) of the kind ``photo``, ``surface``, ``facade``, ``plain`` or ``any``."""
        photo = kind == "photo" or (kind in ("any", "facade") and rng.random() < 0.4)
        if photo and len(self.photos):
            texture = self.photos[rng.integers(len(self.photos))]
        else:
            turn = {"facade": FACADE, "plain": PLAIN}.get(kind, tuple(range(8)))
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


def draw_scene(
    rng: np.random.Generator, config: SyntheticConfig, bank: TextureBank, name: str
) -> SceneBatch:
    """One scene, a batch of 1."""
    kinds = list(config.mix)
    weights = np.array([config.mix[kind] for kind in kinds], float)
    kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
    low, high = config.overlap
    wanted = rng.uniform(low, high)
    best: tuple[Draft, Cameras] | None = None
    for _ in range(10):
        draft = LAYOUTS[kind](rng)
        cameras = choose_cameras(rng, draft, config.size, wanted)
        if best is None or abs(cameras.overlap - wanted) < abs(best[1].overlap - wanted):
            best = draft, cameras
        if low <= cameras.overlap <= high and abs(cameras.overlap - wanted) < 0.1:
            break
    if best is None:
        raise RuntimeError("no scene drawn")
    return assemble(rng, config, bank, *best, (f"{kind}/{name}/0", f"{kind}/{name}/1"))


def assemble(
    rng: np.random.Generator,
    config: SyntheticConfig,
    bank: TextureBank,
    draft: Draft,
    cameras: Cameras,
    name: tuple[str, str],
) -> SceneBatch:
    """Tensors of what the two cameras can see of the draft."""
    rects, paint = np.stack(draft.rects), np.array(draft.rect_paint)
    kept = np.flatnonzero(in_view(rects, cameras, config.size))
    rects, paint = rects[kept], paint[kept]
    sheets = np.stack(draft.sheets) if draft.sheets else np.zeros((0, 3, 4))
    shapes = np.array(draft.sheet_shape).reshape(-1, 3)
    sheet_paint = np.array(draft.sheet_paint).reshape(-1, 7)
    slots = np.unique(np.concatenate([paint[:, 0], sheet_paint[:, 0]]).astype(int))
    textures = np.stack([bank.draw(rng, draft.textures[slot]) for slot in slots])
    for look in (paint, sheet_paint):
        look[:, 0] = np.searchsorted(slots, look[:, 0])
    s = config.strength
    return SceneBatch(
        rects=_batch(rects),
        rect_look=_batch(lit(rng, paint, np.cross(rects[..., 0], rects[..., 1]), s)),
        sheets=_batch(sheets),
        sheet_shape=_batch(shapes),
        sheet_look=_batch(lit(rng, sheet_paint, None, s)),
        textures=torch.from_numpy(textures)[None],
        K=_batch(cameras.K),
        pose=torch.from_numpy(cameras.pose)[None],
        light=_batch(np.exp(0.25 * s * rng.normal(size=(2, *LIGHT_GRID)))),
        tone=_batch(np.stack([draw_tone(rng, s) for _ in range(2)])),
        blur=_batch(np.array([draw_blur(rng, s) for _ in range(2)])),
        counts=torch.tensor([[len(rects), len(sheets), len(textures)]]),
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


def lit(
    rng: np.random.Generator, paint: np.ndarray, normals: np.ndarray | None, strength: float
) -> np.ndarray:
    """(2, N, 7) look of `Draft` paint under a far lamp that may stand elsewhere in each view."""
    look = np.stack([paint, paint])
    if normals is not None and strength > 0:
        lamp = rng.normal(size=(2, 3))
        if rng.random() < 0.5:
            lamp[1] = lamp[0]
        lamp /= np.linalg.norm(lamp, axis=1, keepdims=True)
        length = np.linalg.norm(normals, axis=1)
        ambient = rng.uniform(0.5, 1.0)
        look[:, :, 6] *= ambient + (1 - ambient) * np.abs(lamp @ np.transpose(normals)) / length
    contrast, bright = look[..., 5].copy(), look[..., 6].copy()
    look[..., 5], look[..., 6] = contrast * bright, 0.5 * bright * (1 - contrast)
    return look


def draw_tone(rng: np.random.Generator, strength: float) -> list[float]:
    """As named in `data.synthetic.scene.TONE`."""
    exposure = np.exp(strength * rng.normal(0.05, 0.25))
    contrast = 1 + strength * rng.uniform(-0.3, 0.3)
    curve = strength * rng.uniform(-0.45, 0.45)
    vignette = strength * (rng.uniform(0, 0.4) if rng.random() < 0.3 else 0.0)
    noise = strength * rng.exponential(0.015)
    start = float(rng.integers(0, 1 << 21))
    step = rng.uniform(0.2, 2.0) if strength > 0 and rng.random() < 0.2 else 0.0
    return [exposure, contrast, curve, vignette, noise, start, step]


def draw_blur(rng: np.random.Generator, strength: float) -> list[float]:
    """Standard deviations along and across a line, in pixels of a picture 256 wide, and its angle:
    sharp, out of focus, or moved."""
    kind = rng.random()
    angle, along, across = rng.uniform(0, np.pi), 0.0, 0.0
    if strength > 0 and kind < 0.2:
        along = across = rng.uniform(0.3, 1.2)
    elif strength > 0 and kind < 0.28:
        along = rng.uniform(0.8, WIDEST)
    return [along, across, angle]
