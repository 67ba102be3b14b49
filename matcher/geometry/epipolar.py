"""Epipolar geometry of two views: fundamental matrices and distances from epipolar lines."""

from __future__ import annotations

import torch
from torch import Tensor


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
