"""Transforms from matches, and that other programs move pictures by them as we mean it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import SimpleITK
import skimage.transform
import torch

from matcher.errors import UsageError
from matcher.geometry.transforms import Kind, Transform
from matcher.structures import Matches
from tests.helpers.warped import CORNERS, SIZE, exact_matches, moved, offset, picture

H = np.array([[1.01, 0.02, 3.37], [-0.015, 0.99, -2.41], [2e-5, -3e-5, 1.0]])
AFFINE = np.array([[1.02, 0.03, 3.37], [-0.01, 0.98, -2.41], [0, 0, 1.0]])
SIMILARITY = np.array([[1.02, -0.03, 3.37], [0.03, 1.02, -2.41], [0, 0, 1.0]])
TRUTH: dict[Kind, np.ndarray] = {"similarity": SIMILARITY, "affine": AFFINE, "homography": H}
WITHIN = 0.02


def matches_of(matrix: np.ndarray, count: int = 300, wrong: int = 60) -> Matches:
    """Matches with noise of 0.05 pixels, some of them wrong."""
    rng = np.random.default_rng(3)
    points0 = rng.uniform(5, [195, 145], (count, 2))
    points1 = moved(matrix, points0) + rng.normal(0, 0.05, (count, 2))
    points1[:wrong] = rng.uniform(5, [195, 145], (wrong, 2))
    return Matches(*(torch.from_numpy(p).float() for p in (points0, points1)), torch.ones(count))


def fitted(kind: Kind) -> Transform:
    transform = matches_of(TRUTH[kind]).transform(kind)
    assert isinstance(transform, Transform)
    return transform


@pytest.mark.parametrize("kind", TRUTH)
def test_a_transform_comes_back_from_matches_of_which_a_fifth_is_wrong(kind: Kind) -> None:
    transform = fitted(kind)
    assert np.abs(transform(CORNERS) - moved(TRUTH[kind], CORNERS)).max() < 0.05
    assert transform.inliers[60:].all()
    assert transform.inliers[:60].sum() < 5


@pytest.mark.parametrize("kind", TRUTH)
def test_exact_matches_give_an_exact_transform(kind: Kind) -> None:
    matches = exact_matches(TRUTH[kind])
    points0 = matches.keypoints0.numpy()
    transform = matches.transform(kind)
    np.testing.assert_allclose(transform(points0), moved(TRUTH[kind], points0), atol=1e-6)


def test_a_similarity_has_no_shear() -> None:
    (a, b), (c, d) = matches_of(AFFINE).transform("similarity", threshold=3).matrix[:2, :2]
    assert (a, b) == (d, -c)


@pytest.mark.parametrize("kind", TRUTH)
def test_points_on_a_line_and_too_few_points_give_none(kind: Kind) -> None:
    line = torch.arange(20.0)[:, None].expand(20, 2).contiguous()
    assert Matches(line, line + 1, torch.ones(20)).transform(kind) is None
    assert matches_of(H, 2, 0).transform(kind) is None
    assert Matches.empty().transform(kind) is None


def test_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="E201 kind: got 'rigid'"):
        matches_of(H).transform("rigid")


def by_opencv(transform: Transform, image1: np.ndarray) -> np.ndarray:
    how = cv2.INTER_CUBIC
    return cv2.warpPerspective(image1.astype(np.float32), transform.opencv(), SIZE, flags=how)


def by_scikit_image(transform: Transform, image1: np.ndarray) -> np.ndarray:
    how = transform.scikit_image()
    return skimage.transform.warp(image1, how, output_shape=(150, 200), order=3)


def by_simpleitk(transform: Transform, image1: np.ndarray) -> np.ndarray:
    fixed, moving = (SimpleITK.GetImageFromArray(i) for i in (np.zeros((150, 200)), image1))
    for image in (fixed, moving):
        image.SetSpacing((0.5, 0.5))
        image.SetOrigin((10.0, -4.0))
    how = transform.simpleitk(fixed, moving)
    out = SimpleITK.Resample(moving, fixed, how, SimpleITK.sitkBSpline)
    return SimpleITK.GetArrayFromImage(out)


@pytest.mark.parametrize(
    ("warp", "kind"),
    [
        *((by_opencv, kind) for kind in TRUTH),
        *((by_scikit_image, kind) for kind in TRUTH),
        (by_simpleitk, "similarity"),
        (by_simpleitk, "affine"),
    ],
)
def test_a_picture_is_brought_back_without_half_a_pixel(warp, kind: Kind) -> None:
    warped = warp(fitted(kind), picture(TRUTH[kind]))
    assert offset(warped, picture(np.eye(3))) < WITHIN


def test_the_check_sees_a_fortieth_of_a_pixel() -> None:
    shift = np.eye(3)
    shift[0, 2] = 0.025
    assert offset(picture(shift), picture(np.eye(3))) == pytest.approx(0.025, abs=2e-3)


def test_simpleitk_has_no_homography() -> None:
    with pytest.raises(UsageError, match="E201 kind: got 'homography'"):
        fitted("homography").simpleitk()
