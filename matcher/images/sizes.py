"""How large an image may be, and the size at which the network sees it."""

from __future__ import annotations

import math

MAX_PIXELS = 100_000_000
"""Pixels of an image file; larger ones are refused unless `max_pixels` says otherwise."""
MIN_SIDE = 32
"""Images that the network would see with a shorter side give no match."""
STRIP = 4
"""Images longer than this many times their width are limited by their area."""


def network_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """(width, height) at which the network sees an image; it is never enlarged.

    The longer side is shrunk to `max_side`. A strip keeps more, or nothing of it would be left:
    its shorter side is shrunk no further than to a quarter of `max_side` while its area is at
    most that of a square of `max_side`. No shorter side is shrunk below `MIN_SIDE`.

    Args:
        width, height: of the image, in pixels.
        max_side: None for no limit.
    """
    if max_side is None:
        return width, height
    long, short = max(width, height), min(width, height)
    ratio = max_side / long
    if long > STRIP * short:
        by_area = max_side / math.sqrt(long * short)
        ratio = max(ratio, min(by_area, max_side / STRIP / short))
    ratio = min(1.0, max(ratio, MIN_SIDE / short))
    return max(1, round(width * ratio)), max(1, round(height * ratio))
