"""The levels that patches are read from: blurred images, and how far their pixels may be used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.network.alignment import Level

SHARP = 0.7
"""Blur in pixels of a level under which bilinear values pull by a few hundredths of a pixel."""
EXACT = 1.4
"""Blur under which they pull by a few thousandths."""
BAND_PIXELS = 1 << 18
"""Pixels of an image that are blurred at a time: 1 MB in fp32."""
LEAST_ROWS = 32


class Usable(NamedTuple):
    """An image and which of its pixels are good for comparing."""

    image: Tensor
    """(H, W), 0 where it is not valid"""
    valid: Tensor | None
    """(H, W) in {0, 1}; None where all are"""
    weight: Tensor
    """(H, W) in {0, 1}: 0 at and beside pixels that are not valid, at the border and amid pixels
    that are all black or all white"""
    scale: float
    """Pixels in a pixel that the network saw, at least 1"""


def usable(image: Tensor, mask: Tensor | None, scale: float = 1.0) -> Usable:
    """Finds what may be compared.

    Saturated pixels count as such where their eight neighbors are saturated too: an area without
    content, whose extent depends on the exposure. Single ones, and edges of drawings, stay.

    Args:
        image: (H, W) gray, black 0 and white 1.
        mask: (H, W) bool, False where nothing may be used; None: nowhere.
        scale: pixels in a pixel that the network saw, at least 1.
    """
    valid = image.isfinite() if mask is None else image.isfinite() & mask
    whole = bool(valid.all())
    image = image if whole else torch.where(valid, image, 0.0)
    weight = F.pad(_least(valid), (1, 1, 1, 1))[: image.shape[0], : image.shape[1]]
    for extreme in (image >= 1, image <= 0):
        if bool(extreme.any()):
            around = F.pad(extreme[None], (1, 1, 1, 1), value=True)[0]
            weight = weight & ~_least(around)
    inside = None if whole else valid.to(image.dtype)
    return Usable(image, inside, weight.to(image.dtype), scale)


def _least(flags: Tensor) -> Tensor:
    """(H - 2, W - 2) whether all of 3 x 3 bool flags are set; empty if there are not as many."""
    for dim in (0, 1):
        size = max(flags.shape[dim] - 2, 0)
        parts = [flags.narrow(dim, min(i, flags.shape[dim] - size), size) for i in range(3)]
        flags = parts[0] & parts[1] & parts[2]
    return flags


def blurred(source: Usable, sigma: float, exact: bool = False) -> Level:
    """The image under a Gaussian of `sigma` pixels, as small as that allows.

    Pixels that are not valid have no influence on others.

    Args:
        exact: keep, or make, twice the pixels along each side, so that values between them are
            right to a few thousandths of a pixel.
    """
    image, valid, weight, _ = source
    factor = max(1, min(int(sigma / (EXACT if exact else SHARP) + 1e-6), *image.shape))
    double = exact and sigma < EXACT
    # A mean of n pixels is a blur of variance (n^2 - 1) / 12.
    rest = max(sigma**2 - (factor**2 - 1) / 12, 0.0) ** 0.5 / factor
    weight = _shrunk(weight, factor)
    extent = float(weight.shape[1] * factor), float(weight.shape[0] * factor)
    image = _gaussian(_shrunk(image, factor), rest, double)
    if valid is not None:
        image = image / _gaussian(_shrunk(valid, factor), rest, double).clamp(min=1e-3)
    return Level(image, weight, extent)


def _shrunk(image: Tensor, factor: int) -> Tensor:
    """Means of `factor` x `factor` pixels; what is left at the right and the bottom is cut."""
    return image if factor == 1 else F.avg_pool2d(image[None, None], factor)[0, 0]


def _gaussian(image: Tensor, sigma: float, double: bool) -> Tensor:
    """(H, W) blurred along both axes, or (2 H, 2 W) of it; the border is repeated beyond.

    The Gaussian itself gives the values between pixels, at the centers of their halves. Bands of
    rows that fit into the caches go through both axes, one by one.
    """
    height, width = image.shape
    radius = max(1, math.ceil(3 * sigma))
    filters = [_taps(sigma, radius, shift) for shift in ((-0.25, 0.25) if double else (0.0,))]
    times = len(filters)
    result = image.new_empty(times * height, times * width)
    wide = F.pad(image[None, None], (0, 0, radius, radius), mode="replicate")[0, 0]
    step = max(LEAST_ROWS, BAND_PIXELS // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        band = _filtered(wide[top : bottom + 2 * radius], filters, 0)
        band = F.pad(band[None, None], (radius, radius, 0, 0), mode="replicate")[0, 0]
        result[times * top : times * bottom] = _filtered(band, filters, 1)
    return result


def _taps(sigma: float, radius: int, shift: float) -> list[float]:
    """Weights of the pixels within `radius` of one, at `shift` pixels from its center."""
    at = [i - radius - shift for i in range(2 * radius + 1)]
    taps = [math.exp(-(t**2) / (2 * sigma**2)) for t in at]
    return [tap / sum(taps) for tap in taps]


def _filtered(wide: Tensor, filters: Sequence[list[float]], dim: int) -> Tensor:
    """An image with a margin under each of the filters along an axis, their results in turn."""
    size = wide.shape[dim] - len(filters[0]) + 1
    parts = []
    for taps in filters:
        part = wide.narrow(dim, 0, size) * taps[0]
        for i, tap in enumerate(taps[1:], start=1):
            part.add_(wide.narrow(dim, i, size), alpha=tap)
        parts.append(part)
    return torch.stack(parts, dim=dim + 1).flatten(dim, dim + 1)
