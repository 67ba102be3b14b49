"""Images as the published detectors take them."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from matcher.images.imagenet import to_input
from matcher.tasks.detection.structures import DetectionBatch


def fitted_size(size: tuple[int, int], shorter: int, longer: int) -> tuple[int, int]:
    """(height, width) of a picture of that `size` whose shorter side becomes `shorter` pixels, or
    whose longer one becomes `longer` where it would be more."""
    scale = min(shorter / min(size), longer / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of (height, width), bilinear as published."""
    if pixels.shape[:2] == size:
        return pixels
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)


def scaled(boxes: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """(N, 4) float32 boxes, corner origin, in a picture that was resized; sizes (height, width)."""
    x, y = new[1] / old[1], new[0] / old[0]
    return (boxes * np.array([x, y, x, y])).astype(np.float32)


def to_batch(
    pixels: np.ndarray, boxes: np.ndarray | None = None, classes: np.ndarray | None = None
) -> DetectionBatch:
    """A batch of one (H, W, 3) uint8 image with its (N, 4) boxes and (N,) classes."""
    images = to_input(pixels[None])
    truth = np.zeros((0, 4)) if boxes is None else boxes
    numbers = torch.as_tensor(np.zeros(0) if classes is None else classes).long()
    mask = torch.ones_like(images[:, 0], dtype=torch.bool)
    corners = torch.as_tensor(truth).float()
    return DetectionBatch(images, mask, corners, numbers, torch.zeros_like(numbers))
