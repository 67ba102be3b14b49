"""What the network should find: depth and pose to true matches of cells and their offsets.

One path serves every source of pairs. Cell (r, c) of a map with stride s is centered on network
pixel (x, y) = (s c, s r). The method is LoFTR's (Sun et al., CVPR 2021): warp every cell to the
other image, take the nearest cell there, keep the pairs that agree both ways; here a warped cell
must also agree with the depth that the other image sees.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from matcher.geometry.cameras import invert_rigid, rescale_intrinsics, warp_points
from matcher.structures import ImagePair


class CoarseTargets(NamedTuple):
    """True matches of cells."""

    batch: Tensor
    """(M,) int64"""
    index0: Tensor
    """(M,) int64 raster index into the L cells of image 0"""
    index1: Tensor
    """(M,) int64 raster index into the S cells of image 1"""
    size0: tuple[int, int]
    """(h, w) of the cells of image 0"""
    size1: tuple[int, int]


class FineTargets(NamedTuple):
    """Where exactly each of the `CoarseTargets` lies in image 1."""

    offset: Tensor
    """(M, 2) (x, y) from the center of cell `index1`, in half windows"""
    valid: Tensor
    """(M,) bool: the offset is inside the window"""


@torch.no_grad()
def supervise(
    pair: ImagePair, *, stride: int, reach: float, tolerance: float = 0.2
) -> tuple[CoarseTargets, FineTargets]:
    """True matches of a batch of pairs with geometry.

    Args:
        pair: a batch whose `geometry` is known.
        stride: pixels a coarse cell.
        reach: pixels half a fine window.
        tolerance: relative disagreement of depths above which a cell counts as hidden; 0.2 is
            published for real depth, exact depth allows less.

    Raises:
        ValueError: the pair has no geometry.
    """
    if pair.geometry is None:
        raise ValueError("supervision needs pairs with geometry (depth, K, T_0to1)")
    geometry = pair.geometry
    with torch.autocast(pair.image0.device.type, enabled=False):
        K0 = rescale_intrinsics(geometry.K0.float(), pair.scale0.float())
        K1 = rescale_intrinsics(geometry.K1.float(), pair.scale1.float())
        there = geometry.T_0to1.float()
        side0, side1 = (geometry.depth0, K0, pair.mask0), (geometry.depth1, K1, pair.mask1)
        point, forward = warp_cells(side0, side1, there, stride, tolerance)
        _, backward = warp_cells(side1, side0, invert_rigid(there), stride, tolerance)
    back = backward.gather(1, forward.clamp(min=0))
    cells = torch.arange(back.shape[1], device=back.device)
    batch, index0 = ((forward >= 0) & (back == cells)).nonzero(as_tuple=True)
    index1 = forward[batch, index0]
    size0, size1 = _cells(pair.image0, stride), _cells(pair.image1, stride)
    offset = (point[batch, index0] - _centers(index1, size1[1], stride)) / reach
    coarse = CoarseTargets(batch, index0, index1, size0, size1)
    inside = (offset.abs() <= 1).all(dim=1)
    return coarse, FineTargets(
        offset, inside if geometry.fine is None else inside & geometry.fine[batch]
    )


def warp_cells(
    side0: tuple[Tensor, Tensor, Tensor | None],
    side1: tuple[Tensor, Tensor, Tensor | None],
    T_0to1: Tensor,
    stride: int,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Carry the cell centers of image 0 to image 1 and drop those that image 1 does not see.

    Args:
        side0: of image 0, (B, H0, W0) depth on the network's pixels, 0 where unknown; (B, 3, 3)
            intrinsics in network pixels; (B, H0, W0) bool of pixels with content, None means
            everywhere.
        side1: likewise.
        T_0to1: (B, 4, 4).
        stride: pixels a cell.
        tolerance: largest relative difference between warped and seen depth.

    Returns:
        (B, N, 2) (x, y) network pixels of image 1, and (B, N) raster index of the nearest cell
        there, -1 where the cell is not seen.
    """
    (depth0, K0, mask0), (depth1, K1, mask1) = side0, side1
    depth = depth0[:, ::stride, ::stride]
    columns, depth = depth.shape[2], depth.flatten(1).float()
    cells = torch.arange(depth.shape[1], device=depth.device)
    pixels = _centers(cells, columns, stride).expand(depth.shape[0], -1, 2)
    point, z = warp_points(pixels, depth, K0, K1, T_0to1)
    height, width = depth1.shape[1:]
    point = point.clamp(-1e6, 1e6)
    nearest = point.round().long()
    u, v = nearest.unbind(dim=-1)
    seen = (depth > 0) & (z > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    pixel = v.clamp(0, height - 1) * width + u.clamp(0, width - 1)
    depth_there = depth1.flatten(1).gather(1, pixel).float()
    seen &= (depth_there > 0) & ((z - depth_there).abs() <= tolerance * depth_there)
    cell = (point / stride).round().long()
    columns1, rows1 = -(-width // stride), -(-height // stride)
    cx, cy = cell.unbind(dim=-1)
    seen &= (cx >= 0) & (cx < columns1) & (cy >= 0) & (cy < rows1)
    index = cy.clamp(0, rows1 - 1) * columns1 + cx.clamp(0, columns1 - 1)
    if mask0 is not None:
        seen &= mask0[:, ::stride, ::stride].flatten(1)
    if mask1 is not None:
        seen &= mask1[:, ::stride, ::stride].flatten(1).gather(1, index)
    return point, index.masked_fill(~seen, -1)


def _cells(image: Tensor, stride: int) -> tuple[int, int]:
    h, w = image.shape[-2:]
    return -(-h // stride), -(-w // stride)


def _centers(index: Tensor, columns: int, stride: int) -> Tensor:
    """(N, 2) pixel (x, y) of cells with raster `index`."""
    return torch.stack([index % columns, index // columns], dim=1) * float(stride)
