"""The matcher behind vismatch's ``BaseMatcher``.

from matcher.interop.vismatch import quadmatch

result = quadmatch(device="cpu")("a.jpg", "b.jpg")  # as of every matcher of vismatch
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from matcher.errors import Code, UsageError
from matcher.predictor import load_matcher

Outputs = tuple[np.ndarray, np.ndarray, None, None, None, None, np.ndarray]
"""Matched keypoints of both images, four values of detectors, which there are none of, scores."""


def quadmatch(device: str = "cpu", weights: str = "compact", **settings: Any) -> Any:
    """A matcher of vismatch.

    Args:
        device: as `load_matcher` takes it.
        weights: by name or path.
        settings: those of vismatch's RANSAC.

    Raises:
        UsageError: vismatch cannot be imported (E210), and as `load_matcher`.
    """
    try:
        base: Any = import_module("vismatch").BaseMatcher
    except ImportError as error:
        what = f"cannot be imported: {error}"
        raise UsageError(Code.MISSING_EXTRA, "vismatch", what, "pip install vismatch") from error

    class QuadMatch(base):
        """Pictures are (3, H, W) from 0 to 1; keypoints are in their pixels."""

        def __init__(self) -> None:
            super().__init__(device, **settings)
            self.matcher = load_matcher(weights, device=device)
            self.model = self.matcher.model

        def _forward(self, img0: Tensor, img1: Tensor) -> Outputs:
            # Bicubic resizing may have left the range, which vismatch allows.
            found = self.matcher.match(img0.clamp(0, 1), img1.clamp(0, 1))
            points0, points1, scores = found.numpy()
            return points0, points1, None, None, None, None, scores

    return QuadMatch()
