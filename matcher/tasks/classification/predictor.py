"""From an image to its most probable classes, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from matcher.errors import Code, UsageError
from matcher.images.imagenet import to_input
from matcher.images.load import read_rgb
from matcher.runtime import find_device
from matcher.tasks.classification.preprocess import center_square
from matcher.validation.checked import invalid
from matcher.weights.pyramid import LabeledPyramid, load_published, load_pyramid

ImagePixels = str | Path | np.ndarray
"""A path, or (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Classification:
    """The most probable classes of an image, best first."""

    labels: tuple[str, ...]
    """Their names; ``class 17`` where the weights tell none"""
    scores: tuple[float, ...]
    """Their probabilities"""
    indices: tuple[int, ...]
    """Their numbers among all classes, from 0"""


class Classifier:
    """A pyramid with a head, on a device.

    Args:
        weights: a safetensors file of this project, or a published .pth or .pt.
        model: name of a published classifier, such as ``quadtree_b2``: a published file does not
            tell which it is; "" for a file of this project.
        labels: names of the classes; empty: those in the weights.
        side: pixels of the square that the network sees; None: as the weights tell.
        device: where to compute; None takes a CUDA device where there is one.

    Raises:
        UsageError: the weights lack (E111), the model has no head or the labels do not fit (E201),
            or the device cannot be used.
        CheckpointError: the weights cannot be used.
    """

    def __init__(
        self,
        weights: str | Path,
        model: str = "",
        *,
        labels: Sequence[str] = (),
        side: int | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = find_device(device)
        loaded = load_weights(weights, model)
        classes = loaded.model.config.classes
        self.labels = tuple(labels) or loaded.labels or tuple(f"class {i}" for i in range(classes))
        if len(self.labels) != classes:
            raise invalid("labels", len(self.labels), f"{classes} names, one a class")
        self.side = side or loaded.side
        self.model = loaded.model.to(self.device)

    def classify(self, image: ImagePixels, top: int = 5) -> Classification:
        """The `top` most probable classes of an image.

        Raises:
            UsageError, ImageError: it cannot be read.
        """
        pixels = image if isinstance(image, np.ndarray) else read_rgb(image)
        scores = self.probabilities(center_square(pixels, self.side)[None])[0]
        order = np.argsort(-scores, kind="stable")[:top]
        return Classification(
            tuple(self.labels[i] for i in order),
            tuple(float(scores[i]) for i in order),
            tuple(int(i) for i in order),
        )

    @torch.inference_mode()
    def probabilities(self, squares: np.ndarray) -> np.ndarray:
        """(B, classes) float32 of (B, side, side, 3) uint8."""
        return self.model(to_input(squares).to(self.device)).softmax(dim=1).cpu().numpy()


def load_weights(path: str | Path, model: str = "") -> LabeledPyramid:
    """A classifier and its labels from a file of this project or a published one.

    Raises:
        UsageError, CheckpointError: as `load_published` and `load_pyramid`; without a head (E201).
    """
    if Path(path).suffix in (".pth", ".pt", ".ckpt"):
        if not model:
            what, remedy = "a published file does not tell its model", "give model=quadtree_b0"
            raise UsageError(Code.REFUSED_WORD, path, what, remedy)
        loaded = LabeledPyramid(load_published(path, model))
    else:
        if model:
            raise invalid("model", model, f"none beside {path}, which tells its own")
        loaded = load_pyramid(path)
    if loaded.model.head is None:
        raise UsageError(Code.INVALID_VALUE, path, "has no head", "give weights of a classifier")
    return loaded
