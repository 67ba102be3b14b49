"""Whether pictures agree with their geometry."""

from __future__ import annotations

import torch

from matcher.geometry.cameras import rescale_intrinsics, warp_points
from matcher.structures import ImagePair


def gray_error(pair: ImagePair) -> float:
    """Median difference of the pixels of image 0 to where depth and pose carry them."""
    g = pair.geometry
    assert g is not None
    height, width = pair.image0.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([x, y], dim=-1).view(1, -1, 2).float()
    K0, K1 = rescale_intrinsics(g.K0, pair.scale0), rescale_intrinsics(g.K1, pair.scale1)
    there, z = warp_points(points, g.depth0.flatten(1), K0, K1, g.T_0to1)
    size = torch.tensor([g.depth1.shape[2], g.depth1.shape[1]])
    grid = ((there + 0.5) * 2 / size - 1)[:, None]
    look = torch.nn.functional.grid_sample
    gray = look(pair.image1, grid, align_corners=False)[0, 0, 0]
    depth = look(g.depth1[:, None], grid, mode="nearest", align_corners=False)[0, 0, 0]
    seen = (g.depth0.flatten() > 0) & ((depth - z[0]).abs() < 0.03 * z[0])
    assert seen.sum() > 200
    return float((gray - pair.image0.flatten())[seen].abs().median())
