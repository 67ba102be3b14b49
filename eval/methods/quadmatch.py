"""This project's matcher as an evaluation method."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.methods.classical import as_gray
from matcher.files import sha256_of
from matcher.options import PredictorOptions
from matcher.predictor import load_matcher
from matcher.structures import Matches
from matcher.weights.hub import resolve


class QuadMatch:
    """Weights by name or path; images are matched at the size they come in.

    With `padded`, both images are padded with black to the same square and their padding is
    masked, as in the published evaluation.

    Raises:
        MatcherError: as `load_matcher`.
    """

    def __init__(self, name: str, options: PredictorOptions, *, padded: bool) -> None:
        self.predictor = load_matcher(name, options)
        config = self.predictor.model.config
        self.padded, self.step = padded, config.canvas
        chosen = options.threshold
        self.threshold = config.coarse.threshold if chosen is None else chosen
        self.weights_sha256 = sha256_of(resolve(name, offline=options.offline))

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
        model = self.predictor.model
        output = model.match(
            model.extract(tensor0),
            model.extract(tensor1),
            model.cell_mask(mask0),
            model.cell_mask(mask1),
            threshold=self.threshold,
        )
        return output.split(1)[0].to("cpu")

    def _square(self, image: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
        gray = torch.from_numpy(as_gray(image)).float() / 255
        height, width = gray.shape
        margins = (0, side - width, 0, side - height)
        mask = F.pad(torch.ones(height, width, dtype=torch.bool), margins)
        padded = F.pad(gray, margins)
        device = self.predictor.device
        return padded[None, None].to(device), mask[None].to(device)
