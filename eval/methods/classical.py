"""Keypoints with descriptors, matched by mutual nearest neighbors and the ratio test."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from eval.methods.base import MethodOptions, Settings
from matcher.structures import Matches


class Classical:
    """A detector and descriptor of OpenCV on the CPU; the settings are all it depends on."""

    name: str
    weights_sha256 = None
    device = "cpu"

    def __init__(self, options: MethodOptions) -> None:
        self.keypoints, self.ratio = options.keypoints, options.ratio
        self.settings: Settings = {
            "method": self.name,
            "keypoints": self.keypoints,
            "ratio": self.ratio,
        }


class RootSift(Classical):
    """OpenCV's SIFT with square-rooted descriptors (Arandjelovic and Zisserman, 2012)."""

    CONTRAST = 0.02
    """Half of OpenCV's default, so that rooms with little texture yield keypoints too."""
    name = "rootsift"

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        points0, descriptors0 = self._describe(image0)
        points1, descriptors1 = self._describe(image1)
        # The distance of unit vectors, from their products.
        squared = np.maximum(2.0 - 2.0 * (descriptors0 @ descriptors1.T), 0.0)
        return mutual_matches(points0, points1, np.sqrt(squared), self.ratio)

    def _describe(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sift = cv2.SIFT.create(self.keypoints, contrastThreshold=self.CONTRAST)
        keypoints, descriptors = sift.detectAndCompute(as_gray(image), None)
        if descriptors is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-8)
        return points_of(keypoints), np.sqrt(descriptors / total).astype(np.float32)


class Orb(Classical):
    """OpenCV's ORB with Hamming distances."""

    name = "orb"

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        points0, bits0 = self._describe(image0)
        points1, bits1 = self._describe(image1)
        differing = bits0 @ (1 - bits1).T + (1 - bits0) @ bits1.T
        return mutual_matches(points0, points1, differing, self.ratio)

    def _describe(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        orb = cv2.ORB.create(self.keypoints)
        keypoints, descriptors = orb.detectAndCompute(as_gray(image), None)
        if descriptors is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 256), np.float32)
        bits = np.unpackbits(np.asarray(descriptors, np.uint8), axis=1)
        return points_of(keypoints), bits.astype(np.float32)


def points_of(keypoints: Sequence[cv2.KeyPoint]) -> np.ndarray:
    """(N, 2) pixels of keypoints."""
    return np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32).reshape(-1, 2)


def as_gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def mutual_matches(
    points0: np.ndarray, points1: np.ndarray, distance: np.ndarray, ratio: float
) -> Matches:
    """Mutual nearest neighbors whose nearest distance is below `ratio` times the second nearest.

    Args:
        points0: (N, 2) pixels; `points1` (M, 2).
        distance: (N, M) between descriptors.
        ratio: of the test, applied from image 0 to image 1. Scores are 1 - ratio.
    """
    if min(distance.shape) < 2:
        return Matches.empty("too_few_keypoints")
    index0 = np.arange(len(points0))
    nearest, second = np.argpartition(distance, 1, axis=1)[:, :2].T
    best, other = distance[index0, nearest], distance[index0, second]
    ratios = best / np.maximum(other, 1e-12)
    keep = (distance.argmin(axis=0)[nearest] == index0) & (ratios < ratio)
    return Matches(
        torch.from_numpy(points0[keep]),
        torch.from_numpy(points1[nearest[keep]]),
        torch.from_numpy((1.0 - ratios[keep]).astype(np.float32)),
    )
