"""Procedural gray textures: noise, tiles, bricks, stripes, signs and nearly empty surfaces."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

MIP_LEVELS = 6


def procedural_textures(count: int, side: int, seed: int) -> np.ndarray:
    """(count, side, side) uint8, the kinds in turn; a texture depends on (seed, its number)."""
    textures = np.empty((count, side, side), np.uint8)
    for i in range(count):
        rng = np.random.default_rng((seed, 7, i))
        gray = KINDS[i % len(KINDS)](rng, side)
        textures[i] = (gray.clip(0, 1) * 255).round()
    return textures


def with_mips(textures: np.ndarray) -> np.ndarray:
    """(N, S, 3/2 S) uint8: (N, S, S) textures, and at their right, one below the other, the
    halves, quarters and so on of each."""
    count, side, _ = textures.shape
    sheet = np.zeros((count, side, side * 3 // 2), np.uint8)
    for texture, out in zip(textures, sheet, strict=True):
        out[:, :side] = texture
        level, top = texture.astype(np.uint16), 0
        for _ in range(MIP_LEVELS - 1):
            rows = level[::2] + level[1::2]
            level = (rows[:, ::2] + rows[:, 1::2] + 2) // 4
            n = len(level)
            out[top : top + n, side : side + n] = level
            top += n
    return sheet


def octaves(rng: Generator, side: int, roughness: float = 0.6) -> np.ndarray:
    """Noise with detail at every scale, in [0, 1]."""
    total = np.zeros((side, side), np.float32)
    cells, weight = 3, 1.0
    while cells < side:
        grid = rng.normal(size=(cells, cells)).astype(np.float32)
        total += weight * cv2.resize(grid, (side, side), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * roughness
    low, high = np.percentile(total, (1, 99))
    return (total - low) / (high - low)


def rough(rng: Generator, side: int) -> np.ndarray:
    return octaves(rng, side, rng.uniform(0.5, 0.9))


def speckle(rng: Generator, side: int) -> np.ndarray:
    """Terrazzo, gravel: blobs of random gray on a plain ground."""
    gray = np.full((side, side), rng.uniform(0.2, 0.8), np.float32)
    for _ in range(int(rng.integers(60, 400))):
        center = rng.integers(0, side, 2).tolist()
        axes = rng.integers(2, max(3, side // 24), 2).tolist()
        turn, shade = rng.uniform(0, 180), rng.uniform(0, 1)
        cv2.ellipse(gray, center, axes, turn, 0, 360, shade, -1, cv2.LINE_AA)
    return gray + 0.1 * (octaves(rng, side) - 0.5)


def tiles(rng: Generator, side: int) -> np.ndarray:
    """A grid of tiles with joints, each tile a little different."""
    n = int(rng.integers(3, 14))
    shade = rng.uniform(0.3, 0.8) + rng.uniform(0.02, 0.25) * rng.normal(size=(n, n))
    gray = in_cells(shade, side)
    place = (np.arange(side) * n / side) % 1
    joint = place < rng.uniform(0.03, 0.12)
    gray[joint[:, None] | joint] = rng.uniform(0, 1)
    return gray + rng.uniform(0.02, 0.2) * (octaves(rng, side) - 0.5)


def checkers(rng: Generator, side: int) -> np.ndarray:
    n = int(rng.integers(2, 10)) * 2
    board = np.indices((n, n)).sum(0) % 2
    low, high = np.sort(rng.uniform(0, 1, 2))
    return in_cells(low + (high - low) * board, side) + 0.2 * (octaves(rng, side) - 0.5)


def in_cells(shades: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(shades.astype(np.float32), (side, side), interpolation=cv2.INTER_NEAREST)


def bricks(rng: Generator, side: int) -> np.ndarray:
    rows = int(rng.integers(5, 18)) * 2
    columns = max(2, rows // 3)
    y, x = np.mgrid[0:side, 0:side] / side
    row = np.floor(y * rows).astype(int)
    shifted = x * columns + 0.5 * (row % 2)
    column = np.floor(shifted).astype(int)
    shade = rng.uniform(0.25, 0.7) + rng.uniform(0.03, 0.15) * rng.normal(size=(rows, columns + 1))
    gray = shade[row, column]
    joint = ((y * rows) % 1 < 0.14) | (shifted % 1 < 0.05)
    gray[joint] = rng.uniform(0.5, 0.95)
    return gray + 0.15 * (octaves(rng, side) - 0.5)


def stripes(rng: Generator, side: int) -> np.ndarray:
    """Boards or blinds: bands of unequal width and gray."""
    edges = np.cumsum(rng.uniform(0.3, 1.7, int(rng.integers(5, 30))))
    band = np.searchsorted(edges / edges[-1], np.arange(side) / side)
    shade = rng.uniform(0.1, 0.9, len(edges) + 1)[band]
    grain = cv2.resize(octaves(rng, side)[:, : max(1, side // 8)], (side, side))
    gray = np.broadcast_to(shade[:, None], (side, side)) + 0.2 * (grain - 0.5)
    return gray if rng.random() < 0.5 else gray.T


def windows(rng: Generator, side: int) -> np.ndarray:
    """A facade: the same window again and again, some lit or curtained."""
    rows, columns = int(rng.integers(2, 7)), int(rng.integers(2, 8))
    wall = rng.uniform(0.3, 0.9)
    gray = wall + 0.12 * (octaves(rng, side) - 0.5)
    h, w = side / rows, side / columns
    margin = rng.uniform(0.12, 0.3, 2)
    frame = rng.uniform(0, 1)
    for r in range(rows):
        for c in range(columns):
            top, bottom = int((r + margin[0]) * h), int((r + 1 - margin[0] * 0.8) * h)
            left, right = int((c + margin[1]) * w), int((c + 1 - margin[1]) * w)
            cv2.rectangle(gray, (left - 2, top - 2), (right + 2, bottom + 2), frame, -1)
            cv2.rectangle(gray, (left, top), (right, bottom), float(rng.uniform(0, 0.45)), -1)
            middle, bar = (left + right) // 2, (2 * top + bottom) // 3
            cv2.line(gray, (middle, top), (middle, bottom), frame, 2)
            cv2.line(gray, (left, bar), (right, bar), frame, 2)
    return gray


def signs(rng: Generator, side: int) -> np.ndarray:
    """A page or poster: lines of letters in several sizes."""
    paper, ink = (230, 25) if rng.random() < 0.7 else (40, 215)
    page = np.full((side, side), paper, np.uint8)
    y = side // 16
    while y < side:
        size = rng.uniform(0.3, 1.6)
        letters = "".join(chr(c) for c in rng.integers(33, 123, 40))
        y += int(30 * size)
        face = int(rng.choice([0, 2, 3, 4]))
        thickness = 1 + int(size > 0.9)
        left = int(rng.integers(4, side // 3))
        cv2.putText(page, letters, (left, y), face, size, ink, thickness, cv2.LINE_AA)
    return page / np.float32(255) + 0.1 * (octaves(rng, side) - 0.5)


def plain(rng: Generator, side: int) -> np.ndarray:
    """A painted wall: a gradient, faint marks, nothing else."""
    slope = rng.normal(size=2) * 0.15
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    gray = rng.uniform(0.4, 0.8) + slope[0] * x + slope[1] * y
    return gray + rng.uniform(0.01, 0.08) * (octaves(rng, side, 0.8) - 0.5)


KINDS = (rough, speckle, tiles, windows, bricks, stripes, signs, checkers, plain)
