"""Cameras: intrinsics, rigid transforms and where they take points.

Poses take camera-0 coordinates to camera-1 coordinates; pixels as in `matcher.geometry.pixels`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rescale_intrinsics(K: Tensor, scale: Tensor) -> Tensor:
    """(..., 3, 3) intrinsics of an image to those of it resized; (..., 2) `scale` as (x, y)."""
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
    in_camera1 = (rays * depth[..., None]) @ T_0to1[..., :3, :3].mT + T_0to1[..., None, :3, 3]
    homogeneous = in_camera1 @ K1.mT
    z = homogeneous[..., 2]
    return homogeneous[..., :2] / z.clamp(min=1e-6)[..., None], z
