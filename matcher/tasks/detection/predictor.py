"""From an image to what is in it and where, in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from matcher.errors import Code, MemoryLimitError, UsageError, out_of_memory
from matcher.images.load import read_rgb
from matcher.runtime import find_device, own_settings
from matcher.tasks.detection.decoding import LEAST_SCORE, find_boxes
from matcher.tasks.detection.model import RetinaNet
from matcher.tasks.detection.preprocess import (
    fitted_size,
    resized,
    scaled,
    to_batch,
)
from matcher.tasks.detection.structures import DetectionBatch, Detections
from matcher.tasks.detection.weights import load_detector, load_published
from matcher.validation.checked import invalid

ImagePixels = str | Path | np.ndarray
"""A path, or (H, W, 3) uint8 RGB."""


class Detector:
    """A detector on a device.

    Args:
        weights: a safetensors file of this project, or a published .pth or .pt.
        model: name of a published detector's backbone, such as ``quadtree_b0_dense``: a published
            file does not tell which it is; "" for a file of this project.
        shorter, longer: pixels of the sides that the network sees; 0: as the weights say.
        device: where to compute; None takes a CUDA device where there is one.

    Raises:
        UsageError: the weights lack (E111), or a value cannot work (E201).
        CheckpointError: the weights cannot be used.
    """

    def __init__(
        self,
        weights: str | Path,
        model: str = "",
        *,
        shorter: int = 0,
        longer: int = 0,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = find_device(device)
        self.model = load_weights(weights, model).to(self.device)
        config = self.model.config
        self.labels = config.names
        self.shorter, self.longer = shorter or config.shorter, longer or config.longer

    def detect(self, image: ImagePixels, threshold: float = LEAST_SCORE) -> Detections:
        """What is in an image with a score above `threshold`, at most 100 boxes.

        Boxes of a file are in its pixels when it stands upright, as its EXIF orientation says.

        Raises:
            UsageError, ImageError: it cannot be read.
            MemoryLimitError: it does not fit into memory (E131).
        """
        name = "the image" if isinstance(image, np.ndarray) else str(image)
        pixels = image if isinstance(image, np.ndarray) else read_rgb(image, apply_exif=True)
        size = (pixels.shape[0], pixels.shape[1])
        seen = fitted_size(size, self.shorter, self.longer)
        found = self._run(to_batch(resized(pixels, seen)), threshold, name)
        return Detections(
            scaled(found.corner_boxes, seen, size) - np.float32(0.5),
            found.labels,
            found.scores,
            found.indices,
            size[::-1],
        )

    @own_settings()
    def _run(self, batch: DetectionBatch, threshold: float, name: str) -> Detections:
        height, width = batch.images.shape[-2:]
        try:
            output = self.model(batch.images.to(self.device))
            (found,) = find_boxes(output, [(height, width)], threshold)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            what = f"{width} x {height} pixels do not fit into memory"
            raise MemoryLimitError(Code.OUT_OF_MEMORY, name, what, "set shorter= lower") from error
        boxes, scores, classes = (values.cpu().numpy() for values in found)
        labels = tuple(self.labels[i] for i in classes)
        return Detections(boxes - np.float32(0.5), labels, scores, classes, (width, height))


def load_weights(path: str | Path, model: str = "") -> RetinaNet:
    """A detector from a file of this project or a published one.

    Raises:
        UsageError, CheckpointError: as `load_published` and `load_detector`.
    """
    if Path(path).suffix in (".pth", ".pt", ".ckpt"):
        if not model:
            what, remedy = (
                "a published file does not tell its model",
                "give model=quadtree_b0_dense",
            )
            raise UsageError(Code.REFUSED_WORD, path, what, remedy)
        return load_published(path, model)
    if model:
        raise invalid("model", model, f"none beside {path}, which tells its own")
    return load_detector(path)
