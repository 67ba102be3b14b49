"""THE pixel convention, and everything that moves points between images.

The centre of the top-left pixel is (0, 0). Coordinates are (x, y), sizes (width, height). The
scale of a resized image is original size / network size, so that

    original = (network + 0.5) scale - 0.5.

Poses take camera-0 coordinates to camera-1 coordinates.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Points = TypeVar("Points", Tensor, np.ndarray)

COLMAP_ORIGIN = 0.5
"""COLMAP puts (0, 0) at the outer corner of the top-left pixel."""

EXIF_STEPS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""EXIF orientation to (swap x and y, mirror stored x, mirror stored y)."""


def resize_scale(original: tuple[int, int], network: tuple[int, int]) -> tuple[float, float]:
    """(x, y) scale between two sizes (width, height) of an image."""
    return original[0] / network[0], original[1] / network[1]


def network_to_original(points: Points, scale: Points) -> Points:
    """(..., 2) pixels of the resized image to those of the original; (..., 2) `scale`."""
    return (points + 0.5) * scale - 0.5


def original_to_network(points: Points, scale: Points) -> Points:
    """(..., 2) pixels of the original image to those of the resized one; (..., 2) `scale`."""
    return (points + 0.5) / scale - 0.5


def to_colmap(points: Points) -> Points:
    """Our (..., 2) pixels in COLMAP's convention."""
    return points + COLMAP_ORIGIN


def from_colmap(points: Points) -> Points:
    """COLMAP's (..., 2) pixels in our convention."""
    return points - COLMAP_ORIGIN


def upright_to_stored(points: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """(..., 2) pixels of an image turned as EXIF says, to those of the image as it is stored.

    Args:
        points: pixels of the upright image.
        orientation: the EXIF tag, 1 to 8.
        size: (width, height) as stored.
    """
    swap, mirror_x, mirror_y = EXIF_STEPS[orientation]
    x, y = (points.flip(-1) if swap else points).unbind(-1)
    return torch.stack(
        [size[0] - 1 - x if mirror_x else x, size[1] - 1 - y if mirror_y else y], dim=-1
    )


def stored_to_upright(points: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `upright_to_stored`, with the same arguments."""
    swap, mirror_x, mirror_y = EXIF_STEPS[orientation]
    x, y = points.unbind(-1)
    turned = torch.stack(
        [size[0] - 1 - x if mirror_x else x, size[1] - 1 - y if mirror_y else y], dim=-1
    )
    return turned.flip(-1) if swap else turned


def turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored (H, W, ...) image as its EXIF orientation wants it seen."""
    swap, mirror_x, mirror_y = EXIF_STEPS[orientation]
    image = image[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    return np.ascontiguousarray(image.swapaxes(0, 1) if swap else image)


def rescale_intrinsics(K: Tensor, scale: Tensor) -> Tensor:
    """Intrinsics of the original image to those of the resized one.

    Args:
        K: (..., 3, 3)
        scale: (..., 2) original / network size.
    """
    change = torch.zeros_like(K)
    change[..., 0, 0], change[..., 1, 1] = 1 / scale[..., 0], 1 / scale[..., 1]
    change[..., :2, 2] = 0.5 / scale - 0.5
    change[..., 2, 2] = 1
    return change @ K


def invert_rigid(T: Tensor) -> Tensor:
    """The inverses of (..., 4, 4) rigid transforms."""
    out = torch.zeros_like(T)
    rotation = T[..., :3, :3].mT
    out[..., :3, :3] = rotation
    out[..., :3, 3:] = -rotation @ T[..., :3, 3:]
    out[..., 3, 3] = 1
    return out


def warp_points(
    points: Tensor, depth: Tensor, K0: Tensor, K1: Tensor, T_0to1: Tensor
) -> tuple[Tensor, Tensor]:
    """Where camera 1 sees points of image 0.

    Args:
        points: (..., N, 2) pixels of image 0.
        depth: (..., N) z-depth of the points from camera 0.
        K0: (..., 3, 3) in the pixels of `points`.
        K1: (..., 3, 3)
        T_0to1: (..., 4, 4)

    Returns:
        (..., N, 2) pixels of image 1 and (..., N) depths from camera 1. Only points with both
        depths above 0 are seen; the pixels of others mean nothing, but are finite.
    """
    ones = torch.ones_like(points[..., :1])
    rays = torch.cat([points, ones], dim=-1) @ torch.linalg.inv(K0).mT
    there = (rays * depth[..., None]) @ T_0to1[..., :3, :3].mT + T_0to1[..., None, :3, 3]
    homogeneous = there @ K1.mT
    z = homogeneous[..., 2]
    return homogeneous[..., :2] / z.clamp(min=1e-6)[..., None], z


def fundamental_from_pose(K0: Tensor, K1: Tensor, T_0to1: Tensor) -> Tensor:
    """(..., 3, 3) F with x1^T F x0 = 0 for the homogeneous pixels of a static point."""
    x, y, z = T_0to1[..., :3, 3].unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    essential = cross @ T_0to1[..., :3, :3]
    return torch.linalg.inv(K1).mT @ essential @ torch.linalg.inv(K0)


def epipolar_error(points0: Tensor, points1: Tensor, F: Tensor) -> Tensor:
    """(..., N) pixels: the larger distance of the two points to each other's epipolar line.

    Args:
        points0: (..., N, 2) pixels of image 0; `points1` of image 1.
        F: (..., 3, 3) fundamental matrix; one of zeros gives infinity.
    """
    ones = torch.ones_like(points0[..., :1])
    x0, x1 = (torch.cat([p, ones], dim=-1) for p in (points0, points1))
    line1, line0 = x0 @ F.mT, x1 @ F
    residual = (x1 * line1).sum(dim=-1).abs()
    slope = torch.minimum(line0[..., :2].norm(dim=-1), line1[..., :2].norm(dim=-1))
    return torch.where(slope > 0, residual / slope, torch.inf)
