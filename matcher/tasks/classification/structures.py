"""The values that flow through classification."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from matcher.structures import TensorFields


@dataclass(frozen=True)
class ImageBatch(TensorFields):
    """Images and their classes."""

    images: Tensor
    """(B, 3, H, W) as `matcher.images.imagenet.to_input` gives them"""
    classes: Tensor
    """(B,) int64"""
