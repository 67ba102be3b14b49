"""This project's matcher as an evaluation method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import matcher
from eval.methods.base import MethodOptions, MethodUnavailableError, Settings, unchanged
from eval.methods.classical import as_gray
from eval.source import source_digest
from matcher.errors import Code, MatcherError
from matcher.images.preprocess import pad_bottom_right
from matcher.predictor import load_matcher
from matcher.structures import Matches
from matcher.validation.words import shown
from matcher.weights.checkpoint import quality_sha256
from matcher.weights.hub import resolve

DECISIVE = ("max_side", "top_k", "refine", "snap", "stretch", "padded")
"""Options that answers depend on as they are."""


class QuadMatch:
    """Weights by name or path; images are matched at the size they come in.

    With `MethodOptions.padded`, both images are padded with black to the same square and their
    padding is masked, as in the published evaluation. Raises as `load_matcher`, and
    `MethodUnavailableError` (E210) if the weights could not be fetched.
    """

    def __init__(self, name: str, options: MethodOptions) -> None:
        self.name = name
        try:
            path = resolve(name, offline=options.offline)
            with unchanged(path) as self.weights_sha256:
                quality = quality_sha256(path)
                self.predictor = load_matcher(name, options)
        except MatcherError as error:
            if error.code not in (Code.NOT_FETCHED, Code.NOT_CACHED):
                raise
            raise MethodUnavailableError(name, str(error)) from error
        config = self.predictor.model.config
        self.padded, self.step = options.padded, config.canvas
        own = config.coarse.threshold
        self.threshold = own if options.threshold is None else options.threshold
        self.device = str(self.predictor.device)
        self.settings: Settings = {
            "method": "quadmatch",
            "weights_sha256": self.weights_sha256,
            "quality_sha256": quality,
            "threshold": self.threshold,
            **{name: getattr(options, name) for name in DECISIVE},
            "dtype": str(self.predictor.dtype).removeprefix("torch."),
            **{name: shown(value) for name, value in options.reading.items()},
            "rotate": shown(options.rotate),
            "zoom": options.zoom,
            "source": source_digest([Path(matcher.__file__ or "").parent]),
        }

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        if self.padded:
            return self._match_padded(image0, image1)
        return self.predictor.match(image0, image1)

    @torch.inference_mode()
    def _match_padded(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        side = -max(*image0.shape[:2], *image1.shape[:2]) // self.step * -self.step
        (tensor0, mask0), (tensor1, mask1) = self._square(image0, side), self._square(image1, side)
        output = self.predictor.model(tensor0, tensor1, mask0, mask1, threshold=self.threshold)
        return output.split(1)[0].to("cpu")

    def _square(self, image: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
        """(1, 1, side, side) gray in [0, 1] and the (1, side, side) mask of its image."""
        gray = torch.from_numpy(as_gray(image)).float()[None, None] / 255
        mask = torch.ones(1, *gray.shape[-2:], dtype=torch.bool)
        device = self.predictor.device
        square = side, side
        return pad_bottom_right(gray, square).to(device), pad_bottom_right(mask, square).to(device)
