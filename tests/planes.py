"""Pairs for the tests of training: noise on a plane, seen by a camera that moved sideways."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.structures import ImagePair, PairGeometry

FOCAL, DEPTH = 100.0, 2.0


def plane_pair(seed: int, shift: int = 16, size: tuple[int, int] = (64, 96)) -> ImagePair:
    """Pixel (x, y) of image 0 is pixel (x - shift, y) of image 1."""
    h, w = size
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, h // 4, (w + abs(shift)) // 4 + 1, generator=generator)
    texture = F.interpolate(coarse, scale_factor=4.0, mode="bicubic").clamp(0, 1)
    image0 = texture[..., max(-shift, 0) : max(-shift, 0) + w]
    image1 = texture[..., max(shift, 0) : max(shift, 0) + w]
    K = torch.tensor([[[FOCAL, 0.0, w / 2], [0.0, FOCAL, h / 2], [0.0, 0.0, 1.0]]])
    T = torch.eye(4)[None].clone()
    T[0, 0, 3] = -shift * DEPTH / FOCAL
    depth = torch.full((1, h, w), DEPTH)
    one: Tensor = torch.ones(1, 2)
    geometry = PairGeometry(depth, depth, K, K, T)
    return ImagePair(image0, image1, one, one, geometry=geometry, names=((f"{seed}", "1"),))


def batch(seed: int, count: int = 2) -> ImagePair:
    """`count` pairs with shifts of -16, 0, 8 or 24 pixels."""
    shifts = (-16, 0, 8, 24)
    return ImagePair.collate(
        [plane_pair(seed * 100 + i, shifts[(seed + i) % 4]) for i in range(count)]
    )
