"""This project's matcher as an evaluation method."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.methods.classical import as_gray
from matcher.predictor import load_matcher
from matcher.structures import Matches
from matcher.weights.hub import resolve
from matcher.weights.safetensors_file import sha256_of


class QuadMatch:
    """Weights by name or path; images are matched at the size they come in.

    With `padded`, both images are padded with black to the same square and their padding is
    masked, as in the published evaluation.

    Raises:
        MatcherError: as `load_matcher`.
    """

    def __init__(
        self,
        name: str,
        *,
        device: str | None,
        threshold: float | None,
        offline: bool,
        padded: bool,
    ) -> None:
        self.predictor = load_matcher(
            name, device=device, threshold=threshold, offline=offline, max_side=None
        )
        config = self.predictor.model.config
        self.padded, self.step = padded, config.canvas
        self.threshold = config.coarse.threshold if threshold is None else threshold
        self.weights_sha256 = sha256_of(resolve(name, offline=offline))

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        if self.padded:
            return self._match_padded(image0, image1)
        return self.predictor.match(image0, image1)

    @torch.inference_mode()
    def _match_padded(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        side = -max(*image0.shape[:2], *image1.shape[:2]) // self.step * -self.step
        (tensor0, mask0), (tensor1, mask1) = (
            self._square(image, side) for image in (image0, image1)
        )
        output = self.predictor.model(tensor0, tensor1, mask0, mask1, threshold=self.threshold)
        return output.split(1)[0].to("cpu")

    def _square(self, image: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
        gray = torch.from_numpy(as_gray(image)).float() / 255
        height, width = gray.shape
        margins = (0, side - width, 0, side - height)
        mask = F.pad(torch.ones(height, width, dtype=torch.bool), margins)
        padded = F.pad(gray, margins)
        device = self.predictor.device
        return padded[None, None].to(device), mask[None].to(device)
