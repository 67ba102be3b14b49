import cv2
import numpy as np
import pytest

from matcher.errors import UsageError
from matcher.geometry.robust import (
    Estimator,
    estimate_fundamental,
    estimate_homography,
    estimate_pose,
)

ESTIMATORS = ("poselib", "magsac", "ransac")

K0 = np.array([[500.0, 0, 320], [0, 505, 240], [0, 0, 1]])
K1 = np.array([[610.0, 0, 300], [0, 600, 260], [0, 0, 1]])
ROTATION = cv2.Rodrigues(np.array([0.1, 0.2, -0.05]))[0]
TRANSLATION = np.array([0.5, 0.1, 0.05])


def two_views(count: int = 200, outliers: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-2, 2, (count, 2)), rng.uniform(3, 8, count)])
    views = []
    for K, moved in ((K0, points), (K1, points @ ROTATION.T + TRANSLATION)):
        homogeneous = moved @ K.T
        views.append(homogeneous[:, :2] / homogeneous[:, 2:])
    wrong = rng.random(count) < outliers
    views[1][wrong] = rng.uniform(0, 600, (int(wrong.sum()), 2))
    return views[0], views[1]


def degrees_between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(cv2.Rodrigues(a.T @ b)[0])))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_exact_points_give_the_pose(name):
    found = estimate_pose(*two_views(), K0=K0, K1=K1, estimator=Estimator(name))
    assert found is not None
    assert degrees_between(found.rotation, ROTATION) < 0.01
    assert found.translation @ TRANSLATION / np.linalg.norm(TRANSLATION) > 1 - 1e-7
    assert np.linalg.norm(found.translation) == pytest.approx(1)
    assert found.inliers.dtype == bool
    assert found.inliers.all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_outliers_are_left_out(name):
    points = two_views(outliers=0.3)
    found = estimate_pose(*points, K0=K0, K1=K1, estimator=Estimator(name))
    assert found is not None
    assert degrees_between(found.rotation, ROTATION) < 1
    assert 0.6 < found.inliers.mean() < 0.8


@pytest.mark.parametrize("name", ESTIMATORS)
def test_points_a_hundred_steps_away_give_the_pose(name):
    rng = np.random.default_rng(0)
    rays = np.column_stack([rng.uniform(-0.4, 0.4, (200, 2)), np.ones(200)])
    far = rays * rng.uniform(100, 200, (200, 1)) * np.linalg.norm(TRANSLATION)
    views = pixels(far, K0), pixels(far @ ROTATION.T + TRANSLATION, K1)
    found = estimate_pose(*views, K0=K0, K1=K1, estimator=Estimator(name))
    assert found is not None
    assert degrees_between(found.rotation, ROTATION) < 0.5
    assert found.inliers.mean() > 0.9


def test_essential_matrix_vanishes_on_inliers():
    points0, points1 = two_views()
    found = estimate_pose(points0, points1, K0=K0, K1=K1)
    assert found is not None
    rays0, rays1 = (
        np.column_stack([p, np.ones(len(p))]) @ np.linalg.inv(K).T
        for p, K in ((points0, K0), (points1, K1))
    )
    assert np.abs(np.sum(rays1 @ found.essential * rays0, axis=1)).max() < 1e-6


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fundamental_and_homography_of_exact_points(name):
    estimator = Estimator(name)
    points0, points1 = two_views()
    found = estimate_fundamental(points0, points1, estimator=estimator)
    assert found is not None
    homogeneous0, homogeneous1 = (np.column_stack([p, np.ones(len(p))]) for p in (points0, points1))
    line = homogeneous0 @ found.matrix.T
    distance = np.sum(homogeneous1 * line, axis=1) / np.linalg.norm(line[:, :2], axis=1)
    assert np.abs(distance).max() < 0.1
    H = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 3], [1e-4, 2e-4, 1]])
    moved = homogeneous0 @ H.T
    plane = estimate_homography(points0, moved[:, :2] / moved[:, 2:], estimator=estimator)
    assert plane is not None
    np.testing.assert_allclose(plane.matrix, H, atol=1e-4, rtol=1e-4)
    assert plane.matrix[2, 2] == 1
    assert plane.inliers.all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_exact_inliers_decide_the_pose_and_all_are_told(name):
    points0, points1 = two_views()
    rng = np.random.default_rng(1)
    exact = np.arange(len(points0)) % 2 == 0
    points1 = points1 + rng.normal(0, np.where(exact, 0.02, 0.5)[:, None], points1.shape)
    plain, adjusted = (
        estimate_pose(points0, points1, K0=K0, K1=K1, estimator=Estimator(name), exact=known)
        for known in (None, exact)
    )
    assert plain is not None
    assert adjusted is not None
    error = degrees_between(plain.rotation, ROTATION)
    assert degrees_between(adjusted.rotation, ROTATION) < min(0.01, error / 3)
    assert adjusted.translation @ TRANSLATION > 0
    assert adjusted.inliers.tolist() == plain.inliers.tolist()


def test_a_few_exact_ones_or_ones_on_a_line_do_not_decide():
    points0, points1 = two_views()
    points1 = points1 + np.random.default_rng(1).normal(0, 0.3, points1.shape)
    plain = estimate_pose(points0, points1, K0=K0, K1=K1)
    few = np.arange(len(points0)) < 10
    adjusted = estimate_pose(points0, points1, K0=K0, K1=K1, exact=few)
    assert plain is not None
    assert adjusted is not None
    assert adjusted.rotation.tobytes() == plain.rotation.tobytes()
    points0[:30] = np.linspace([100, 100], [300, 200], 30)
    points1[:30] = np.linspace([150, 120], [350, 260], 30)
    on_a_line = estimate_pose(points0, points1, K0=K0, K1=K1, exact=np.arange(len(points0)) < 30)
    without = estimate_pose(points0, points1, K0=K0, K1=K1)
    assert on_a_line is not None
    assert without is not None
    assert on_a_line.rotation.tobytes() == without.rotation.tobytes()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_seed_gives_the_same_bits(name):
    points = two_views(outliers=0.5)
    first, second = (
        estimate_pose(*points, K0=K0, K1=K1, estimator=Estimator(name, seed=7)) for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert first.rotation.tobytes() == second.rotation.tobytes()
    assert first.inliers.tobytes() == second.inliers.tobytes()


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_points_give_none(name, count):
    points = [p[:count] for p in two_views()]
    estimator = Estimator(name)
    assert estimate_pose(*points, K0=K0, K1=K1, estimator=estimator) is None
    assert estimate_fundamental(*points, estimator=estimator) is None
    assert estimate_homography(*points, estimator=estimator) is None


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("points", [np.ones((50, 2)), np.outer(np.arange(50.0), [1.0, 2.0])])
def test_one_point_or_a_line_gives_none(name, points):
    estimator = Estimator(name)
    assert estimate_pose(points, points, K0=K0, K1=K1, estimator=estimator) is None
    assert estimate_fundamental(points, points, estimator=estimator) is None
    assert estimate_homography(points, points, estimator=estimator) is None


def test_bad_values_are_refused():
    with pytest.raises(UsageError, match="magsacc"):
        Estimator("magsacc")
    with pytest.raises(UsageError, match="threshold"):
        Estimator(threshold=float("nan"))
    with pytest.raises(UsageError, match="K0"):
        estimate_pose(*two_views(), K0=np.zeros((3, 3)), K1=K1)
    with pytest.raises(ValueError, match="finite"):
        estimate_homography(np.full((9, 2), np.nan), np.ones((9, 2)))
    with pytest.raises(ValueError, match="expected"):
        estimate_homography(np.ones((9, 2)), np.ones((8, 2)))


def test_published_focal_is_the_mean_of_fx0_and_fy1():
    assert Estimator(published_focal=True).focal(K0, K1) == (500 + 600) / 2
    assert Estimator().focal(K0, K1) == (500 + 505 + 610 + 600) / 4


def pixels(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    homogeneous = points @ K.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("skew", [0.0, 150.0])
@pytest.mark.parametrize("multiple", [1.0, 2.0])
def test_the_pose_is_right_for_any_pinhole(name, skew, multiple):
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-2, 2, (200, 2)), rng.uniform(3, 8, 200)])
    skewed = K0.copy()
    skewed[0, 1] = skew
    found = estimate_pose(
        pixels(points, skewed),
        pixels(points @ ROTATION.T + TRANSLATION, K1),
        K0=multiple * skewed,
        K1=K1,
        estimator=Estimator(name),
    )
    assert found is not None
    assert degrees_between(found.rotation, ROTATION) < 0.01
    assert found.translation @ TRANSLATION / np.linalg.norm(TRANSLATION) > 1 - 1e-7


def test_keypoints_and_centers_of_any_size_give_a_pose_none_or_one_line():
    points0, points1 = two_views()
    for name in ESTIMATORS:
        for size in (1e6, 1e12, 1e200, 1e300):
            far = points1.copy()
            far[0] = size
            estimate_pose(points0, far, K0=K0, K1=K1, estimator=Estimator(name))
            estimate_fundamental(points0 * size, far, estimator=Estimator(name))
            estimate_homography(points0 * size, far, estimator=Estimator(name))
    for center in (1e8, -3e9, 1e300):
        K = K0.copy()
        K[0, 2] = center
        with pytest.raises(UsageError, match="E201 K0: no intrinsics"):
            estimate_pose(points0, points1, K0=K, K1=K1)


FOCAL = 600.0


def noisy_views(seed: int, wrong: float) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """400 points at depths 4 to 8 in two views with 0.5 px of noise, in pixels from the center;
    the true rotation and translation."""
    rng, count = np.random.default_rng(seed), 400
    depth = rng.uniform(4, 8, count)
    across, down = (rng.uniform(-s, s, count) / FOCAL * depth for s in (320, 240))
    first = np.column_stack([across, down, depth])
    rotation = cv2.Rodrigues(rng.normal(0, 0.1, 3))[0]
    translation = rng.normal(size=3)
    translation /= np.linalg.norm(translation)
    second = first @ rotation.T + translation
    views = [x[:, :2] / x[:, 2:] * FOCAL + rng.normal(0, 0.5, (count, 2)) for x in (first, second)]
    bad = int(count * wrong)
    views[1][:bad] = rng.uniform([-320, -240], [320, 240], (bad, 2))
    return views, rotation, translation


def median_error(name: str, wrong: float, unit: float) -> float:
    """Degrees, of 40 pairs of views whose pixels are `unit` long and whose threshold is one."""
    K, errors = np.diag([FOCAL * unit, FOCAL * unit, 1.0]), []
    for seed in range(40):
        views, rotation, translation = noisy_views(seed, wrong)
        estimator = Estimator(name, threshold=unit)
        found = estimate_pose(views[0] * unit, views[1] * unit, K0=K, K1=K, estimator=estimator)
        assert found is not None
        cosine = np.clip(abs(found.translation @ translation), 0, 1)
        errors.append(max(degrees_between(found.rotation, rotation), np.degrees(np.arccos(cosine))))
    return float(np.median(errors))


@pytest.mark.parametrize("wrong", [0.2, 0.5])
def test_magsac_is_as_exact_as_poselib_in_pixels_and_on_rays(wrong):
    poselib = median_error("poselib", wrong, 1.0)
    assert median_error("magsac", wrong, 1.0) <= 1.3 * poselib
    assert median_error("magsac", wrong, 1 / FOCAL) <= 1.3 * poselib
