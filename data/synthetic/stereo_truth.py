"""Rectified pairs of rendered scenes with their exact disparity and occlusion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.synthetic.render import render
from data.synthetic.scene import SceneBatch
from matcher.tasks.stereo.structures import StereoPair

TOLERANCE = 0.5
"""Pixels by which two disparities of one surface may differ, beside its own slope."""


class Misalignment(NamedTuple):
    """What rectification leaves in the right view, in pixels and radians."""

    shift: float
    angle: float


ALIGNED = Misalignment(0.0, 0.0)


def render_stereo(
    scene: SceneBatch, misalignment: Misalignment = ALIGNED, *, augment: bool = True
) -> StereoPair:
    """Both views with exact disparity and occlusion.

    Args:
        scene: one scene before two cameras that differ by a shift along x alone.
        misalignment: applied to the right picture, not to the truth.
        augment: False leaves out lighting, response, blur, noise and compression.
    """
    pair = render(scene, augment=augment)
    geometry = pair.geometry
    if geometry is None:
        raise RuntimeError("the renderer gave no geometry")
    scale = -geometry.K0[:, 0, 0] * geometry.T_0to1[:, 0, 3]
    left, right = (
        torch.where(depth > 0, scale[:, None, None] / depth.clamp(min=1e-6), 0.0)
        for depth in (geometry.depth0, geometry.depth1)
    )
    valid = left > 0
    return StereoPair(
        left=pair.image0,
        right=misaligned(pair.image1, misalignment),
        disparity=left,
        occluded=occluded_in(left, right) & valid,
        valid=valid,
    )


def occluded_in(left: Tensor, right: Tensor) -> Tensor:
    """Where the right view does not show a point of the left one.

    A point is hidden if what the right view shows in its place is nearer, that is of a larger
    disparity, between the two pixels there as well as at the closer of them; the closer one may
    exceed it by what the surface climbs on the way.

    Args:
        left: (B, H, W) disparity of the left view in pixels; right: of the right view.

    Returns:
        (B, H, W) bool; True also where the point lies outside the right picture.
    """
    width = left.shape[-1]
    column = torch.arange(width, device=left.device) - left
    before = column.floor().long()
    part = column - before
    first, second = (right.gather(-1, (before + i).clamp(0, width - 1)) for i in (0, 1))
    between = torch.lerp(first, second, part)
    closer = torch.where(part < 0.5, first, second)
    reach = torch.minimum(part, 1 - part)
    hidden = between - left > TOLERANCE
    hidden &= closer - left > TOLERANCE + slope(left) * reach
    return hidden | (column < -0.5)


def slope(disparity: Tensor) -> Tensor:
    """(B, H, W) change of the disparity to the next pixel of the row, on its gentler side."""
    step = F.pad(disparity.diff(dim=-1).abs(), (1, 1), value=torch.inf)
    return torch.minimum(step[..., 1:], step[..., :-1]).nan_to_num(posinf=0.0)


def misaligned(image: Tensor, error: Misalignment) -> Tensor:
    """(B, 1, H, W) moved up by `error.shift` pixels and turned by `error.angle` radians."""
    if error == ALIGNED:
        return image
    height, width = image.shape[-2:]
    c, s = np.cos(error.angle), np.sin(error.angle)
    # In the coordinates of grid_sample, -1 to 1 over each side.
    turn = [[c, -s * height / width, 0.0], [s * width / height, c, 2 * error.shift / height]]
    theta = torch.tensor([turn], dtype=image.dtype).expand(len(image), -1, -1)
    grid = F.affine_grid(theta, list(image.shape), align_corners=False)
    moved = F.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return moved.clamp(0, 1)
