"""This project's matcher as an evaluation method."""

from __future__ import annotations

import numpy as np

from matcher.predictor import load_matcher
from matcher.structures import Matches


class QuadMatch:
    """Weights by name or path; the images are matched at the size they come in."""

    def __init__(
        self,
        name: str,
        *,
        device: str | None,
        threshold: float | None,
        offline: bool,
        published: bool,
    ) -> None:
        self.predictor = load_matcher(
            name, device=device, threshold=threshold, offline=offline, max_side=None
        )

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        return self.predictor.match(image0, image1)
