"""The values that flow through stereo matching.

Disparity is x_left - x_right in pixels of the left image, positive, 0 where unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from matcher.structures import TensorFields


@dataclass(frozen=True)
class StereoPair(TensorFields):
    """A batch of rectified pairs with ground truth of the left view."""

    left: Tensor
    """(B, 1, H, W) gray in [0, 1]"""
    right: Tensor
    """(B, 1, H, W)"""
    disparity: Tensor
    """(B, H, W) pixels, 0 where there is none; of occluded pixels too where it is known"""
    occluded: Tensor
    """(B, H, W) bool: the right view does not show this point"""
    valid: Tensor
    """(B, H, W) bool: `disparity` and `occluded` are known"""


@dataclass(frozen=True)
class StereoOutput(TensorFields):
    """What the network says of a batch of pairs; h, w are a quarter of the padded H, W."""

    probability: Tensor
    """(B, h, w, w + 1) of each cell of the right row, and last that there is none"""
    coarse: Tensor
    """(B, 1, h, w) disparity of the most probable cell and its neighbors, in cells"""
    disparity: Tensor
    """(B, 1, H, W) pixels"""
    occlusion: Tensor
    """(B, 1, H, W) logit of being occluded"""
