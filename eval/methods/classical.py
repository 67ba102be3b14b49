"""Keypoints with descriptors, matched by mutual nearest neighbors and the ratio test."""

from __future__ import annotations

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
        limits = {"keypoints": self.keypoints, "ratio": self.ratio}
        self.settings: Settings = {"method": self.name, **limits}


class RootSift(Classical):
    """OpenCV's SIFT with square-rooted descriptors (Arandjelovic and Zisserman, 2012)."""

    CONTRAST = 0.02
    """Half of OpenCV's default, so that rooms with little texture yield keypoints too."""
    name = "rootsift"

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        (points0, unit0), (points1, unit1) = self._describe(image0), self._describe(image1)
        squared = np.maximum(2.0 - 2.0 * (unit0 @ unit1.T), 0.0)
        return mutual_matches(points0, points1, np.sqrt(squared), self.ratio)

    def _describe(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sift = cv2.SIFT.create(self.keypoints, contrastThreshold=self.CONTRAST)
        points, descriptors = detected(sift, image, 128)
        total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-8)
        return points, np.sqrt(descriptors / total).astype(np.float32)


class Orb(Classical):
    """OpenCV's ORB with Hamming distances."""

    name = "orb"

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        (points0, bits0), (points1, bits1) = self._describe(image0), self._describe(image1)
        differing = bits0 @ (1 - bits1).T + (1 - bits0) @ bits1.T
        return mutual_matches(points0, points1, differing, self.ratio)

    def _describe(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, descriptors = detected(cv2.ORB.create(self.keypoints), image, 32)
        return points, np.unpackbits(descriptors.astype(np.uint8), axis=1).astype(np.float32)


def detected(
    detector: cv2.Feature2D, image: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) float32 pixels of the keypoints of an image, and (N, width) their descriptors."""
    if min(image.shape[:2]) < 2:  # Of which ORB cannot make a smaller one.
        return np.zeros((0, 2), np.float32), np.zeros((0, width), np.float32)
    keypoints, descriptors = detector.detectAndCompute(as_gray(image), None)
    points = np.array([keypoint.pt for keypoint in keypoints], np.float32).reshape(-1, 2)
    return points, np.zeros((0, width), np.float32) if descriptors is None else descriptors


def as_gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def mutual_matches(
    points0: np.ndarray, points1: np.ndarray, distance: np.ndarray, ratio: float
) -> Matches:
    """Mutual nearest neighbors whose nearest distance is below `ratio` times the second nearest.

    Of (N, 2) and (M, 2) pixels with (N, M) distances between descriptors; tested from image 0 to
    image 1. Scores are 1 - ratio.
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
