"""The matcher behind the interface of ``kornia.feature.LoFTR``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from matcher.images.preprocess import pad_bottom_right
from matcher.network.model import FeatureMatcher
from matcher.validation.checked import invalid


class KorniaMatcher(nn.Module):
    """Any matcher, such as ``load_matcher("outdoor").model``, in the place of kornia's LoFTR."""

    def __init__(self, model: FeatureMatcher) -> None:
        super().__init__()
        self.model = model

    def forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Match a batch of pairs.

        Args:
            data: ``image0`` (B, 1, H0, W0) and ``image1`` (B, 1, H1, W1), gray in [0, 1], of any
                size; optionally ``mask0`` (B, H0, W0) and ``mask1``, zero where nothing may match.

        Returns:
            ``keypoints0`` and ``keypoints1`` (M, 2) in pixels of the given images, (x, y);
            ``confidence`` (M,); ``batch_indexes`` (M,) int64, in order.

        Raises:
            UsageError: a missing image, or another shape.
        """
        image0, mask0 = self._on_canvas(data, "0")
        image1, mask1 = self._on_canvas(data, "1")
        if image0.shape[0] != image1.shape[0]:
            expected = f"a batch of {image0.shape[0]}, that of image0"
            raise invalid("image1", tuple(data["image1"].shape), expected)
        output = self.model(image0, image1, mask0, mask1)
        return {
            "keypoints0": output.keypoints0,
            "keypoints1": output.keypoints1,
            "confidence": output.score,
            "batch_indexes": output.batch,
        }

    def _on_canvas(self, data: Mapping[str, Tensor], number: str) -> tuple[Tensor, Tensor | None]:
        """The image padded to the canvas, and its mask of pixels; None where all are valid."""
        image, mask = data.get(f"image{number}"), data.get(f"mask{number}")
        shape = None if image is None else tuple(image.shape)
        if image is None or image.ndim != 4 or image.shape[1] != 1 or 0 in image.shape:
            raise invalid(f"image{number}", shape, "(B, 1, H, W)")
        expected = (image.shape[0], *image.shape[2:])
        if mask is not None and tuple(mask.shape) != expected:
            raise invalid(f"mask{number}", tuple(mask.shape), f"{expected}, that of the image")
        canvas = self.model.config.canvas
        height, width = (-(-side // canvas) * canvas for side in image.shape[2:])
        if mask is None and (height, width) == image.shape[2:]:
            return image, None
        if mask is None:
            mask = torch.ones(expected, dtype=torch.bool, device=image.device)
        padded = pad_bottom_right(image, (height, width), mode="replicate")
        return padded, pad_bottom_right(mask.bool(), (height, width))
