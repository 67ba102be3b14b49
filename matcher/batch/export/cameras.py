"""Cameras of images of several sizes under one K."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from matcher.batch.options import Camera
from matcher.geometry.pixels import original_to_network
from matcher.validation.checked import invalid

Size = tuple[int, int]
"""(width, height) in pixels."""


def camera_of_each_size(camera: Camera, sizes: Mapping[str, Size]) -> dict[Size, Camera]:
    """The camera at each of the sizes that images have.

    `camera` belongs to the size in whose middle its principal point lies, or nearest to it. At
    another scale of that size it is scaled. On its side, where nothing tells which way it was
    turned, the focal lengths change places and the principal point is the middle.

    Args:
        camera: the center of the top-left pixel at (0, 0).
        sizes: size of each image by its name.

    Raises:
        UsageError: an image has another shape, so that it is of another camera (E201).
    """
    own = _own_size(camera, list(sizes.values()))
    out: dict[Size, Camera] = {}
    for name, size in sizes.items():
        if size not in out:
            out[size] = _at_size(camera, own, size, name)
    return out


def _own_size(camera: Camera, sizes: list[Size]) -> Size:
    counts = Counter(sizes)
    center = np.array(camera[2:])

    def off(size: Size) -> tuple[float, int]:
        middle = (np.array(size) - 1) / 2
        return float(np.abs((center - middle) / size).max()), -counts[size]

    return min(counts, key=off)


def _at_size(camera: Camera, own: Size, size: Size, name: str) -> Camera:
    fx, fy, cx, cy = camera
    if size == own:
        return camera
    if _same_shape(own, size):
        scale = np.array(own) / size
        x, y = original_to_network(np.array([cx, cy]), scale)
        return fx / scale[0], fy / scale[1], float(x), float(y)
    turned = own[1], own[0]
    if _same_shape(turned, size):
        scale = np.array(turned) / size
        return fy / scale[0], fx / scale[1], (size[0] - 1) / 2, (size[1] - 1) / 2
    text = f"one camera: {name} has {size[0]} x {size[1]} pixels, others {own[0]} x {own[1]}"
    raise invalid("K", list(camera), f"images of {text}; leave K out, or match them apart")


def _same_shape(own: Size, size: Size) -> bool:
    """Whether one size is another at some scale, but for rounding to whole pixels."""
    scale = float(np.sqrt(np.prod(np.array(size, float)) / np.prod(np.array(own, float))))
    return bool((np.abs(np.array(own) * scale - size) <= max(1.0, scale)).all())
