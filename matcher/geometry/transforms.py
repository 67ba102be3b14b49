"""Transforms of the plane from matches, and as the programs that use them want them.

Each takes points of image 0 to image 1. A program that brings image 1 onto image 0 wants that
direction (scikit-image, SimpleITK, SciPy) or its inverse (OpenCV, kornia).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from matcher.errors import Code, UsageError, require_extra
from matcher.geometry.robust import (
    MINIMUM,
    Estimator,
    estimate_homography,
    finite_points,
    is_supported,
)
from matcher.validation.checked import invalid

Kind = Literal["similarity", "affine", "homography"]


@dataclass(frozen=True)
class Transform:
    """A transform that was fitted to matches: x1 ~ matrix x0."""

    kind: Kind
    matrix: np.ndarray
    """(3, 3) float64, in pixels, the center of the top-left one at (0, 0); its last number is 1"""
    inliers: np.ndarray
    """(N,) bool, the matches that agree with it"""

    def __call__(self, points0: np.ndarray) -> np.ndarray:
        """(N, 2) pixels of image 1 of (N, 2) pixels of image 0."""
        return warp(np.asarray(points0, np.float64), self.matrix)

    def opencv(self) -> np.ndarray:
        """(3, 3) for ``cv2.warpPerspective(image1, transform.opencv(), size0)``, which brings
        image 1 onto image 0 and wants the way from the one to the other."""
        return np.linalg.inv(self.matrix)

    def scikit_image(self) -> Any:
        """An object of `skimage.transform` for ``warp(image1, transform.scikit_image(),
        output_shape=image0.shape)``, which wants the way from image 0 to image 1.

        Raises:
            UsageError: scikit-image is not installed (E210).
        """
        skimage = require_extra("skimage.transform", "register", "Transform.scikit_image")
        kinds = {
            "similarity": skimage.SimilarityTransform,
            "affine": skimage.AffineTransform,
            "homography": skimage.ProjectiveTransform,
        }
        return kinds[self.kind](self.matrix)

    def simpleitk(self, image0: Any = None, image1: Any = None) -> Any:
        """An affine transform of SimpleITK that ``Resample(image1, image0, transform)`` takes.

        Args:
            image0, image1: pictures of SimpleITK whose origin, spacing and direction count; None:
                spacing 1 and the origin at the center of the top-left pixel.

        Raises:
            UsageError: SimpleITK is not installed (E210), or has no such transform: a homography
                (E201).
        """
        itk = require_extra("SimpleITK", "register", "Transform.simpleitk")
        if self.kind == "homography":
            raise invalid("kind", self.kind, "similarity or affine, as SimpleITK has no other")
        there = _physical(image1) @ self.matrix @ np.linalg.inv(_physical(image0))
        transform = itk.AffineTransform(2)
        transform.SetMatrix(there[:2, :2].ravel().tolist())
        transform.SetTranslation(there[:2, 2].tolist())
        return transform


def warp(points: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """(N, 2) points under a (3, 3) homography."""
    moved = np.column_stack([points, np.ones(len(points))]) @ homography.T
    return moved[:, :2] / moved[:, 2:]


def estimate_transform(
    kind: Kind,
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    *,
    estimator: Estimator | None = None,
) -> Transform | None:
    """The transform that most matches agree with; None if it cannot be had.

    Args:
        kind: a similarity has four degrees of freedom, an affine transform six, a homography eight.
        keypoints0, keypoints1: (N, 2) pixels.
        estimator: how; similarities and affine transforms are found by OpenCV's RANSAC.

    Raises:
        UsageError: another kind (E201).
    """
    estimator = estimator or Estimator()
    if kind == "homography":
        found = estimate_homography(keypoints0, keypoints1, estimator=estimator)
        return None if found is None else Transform(kind, found.matrix, found.inliers)
    finders = {"similarity": cv2.estimateAffinePartial2D, "affine": cv2.estimateAffine2D}
    if kind not in finders:
        raise invalid("kind", kind, "similarity, affine or homography")
    points0, points1 = finite_points(keypoints0, keypoints1)
    if len(points0) < MINIMUM[kind]:
        return None
    _, mask = finders[kind](
        points0,
        points1,
        method=cv2.RANSAC,
        ransacReprojThreshold=estimator.threshold,
        maxIters=estimator.iterations,
        confidence=estimator.confidence,
    )
    if mask is None or not is_supported(kind, points0, points1, mask.ravel() > 0):
        return None
    inliers = mask.ravel() > 0
    # Once more in double precision, as OpenCV counts in single.
    return Transform(kind, _least_squares(kind, points0[inliers], points1[inliers]), inliers)


def _least_squares(kind: Kind, points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """(3, 3) of least squared errors in image 1, of (N, 2) points around their mean."""
    center0, center1 = points0.mean(axis=0), points1.mean(axis=0)
    (x, y), moved = (points0 - center0).T, points1 - center1
    matrix = np.eye(3)
    if kind == "similarity":
        turning = np.concatenate([np.stack([x, -y], axis=1), np.stack([y, x], axis=1)])
        a, b = np.linalg.lstsq(turning, moved.T.ravel(), rcond=None)[0]
        matrix[:2, :2] = [[a, -b], [b, a]]
    else:
        matrix[:2, :2] = np.linalg.lstsq(np.stack([x, y], axis=1), moved, rcond=None)[0].T
    matrix[:2, 2] = center1 - matrix[:2, :2] @ center0
    return matrix


def _physical(image: Any) -> np.ndarray:
    """(3, 3) from pixels of a picture of SimpleITK to its physical points."""
    matrix = np.eye(3)
    if image is not None:
        if image.GetDimension() != 2:
            what = f"a picture of {image.GetDimension()} dimensions"
            raise UsageError(Code.INVALID_VALUE, "image", what, "give a slice of two")
        direction = np.array(image.GetDirection()).reshape(2, 2)
        matrix[:2, :2] = direction @ np.diag(image.GetSpacing())
        matrix[:2, 2] = image.GetOrigin()
    return matrix
