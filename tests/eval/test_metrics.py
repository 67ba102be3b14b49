import itertools
import math

import cv2
import numpy as np
import pytest
from sklearn.metrics import auc as trapezoid_of_points

from eval import metrics
from eval.benchmarks.folder import EvalPair
from eval.benchmarks.sizing import CONVENTIONS, EXACT, PUBLISHED, Sizing
from eval.measure import measure_pair
from eval.predictions import Prediction
from eval.protocols import PROTOCOLS, protocol_named
from matcher.geometry.transforms import warp
from matcher.structures import Matches
from tests.helpers.eval_folders import exact_matches, relative_pose
from tests.helpers.miniature import rendered_scenes


def test_auc_by_hand():
    # One error of 2.5 below 5: a ramp to 1/2 at 2.5, then level: (0.5*2.5*0.5 + 2.5*0.5) / 5.
    assert metrics.error_auc([2.5, math.inf], [5]) == [pytest.approx(0.375)]
    assert metrics.error_auc([0.0, 0.0], [5, 10]) == [1.0, 1.0]
    assert metrics.error_auc([math.inf] * 3, [5]) == [0.0]
    # An error on the threshold is not below it.
    assert metrics.error_auc([5.0], [5]) == [0.0]
    assert math.isnan(metrics.error_auc([], [5])[0])
    for bad in ([-1.0], [math.nan]):
        with pytest.raises(ValueError, match="non-negative"):
            metrics.error_auc(bad, [5])


def curve_area(errors: list[float], threshold: float) -> float:
    """The same area from its definition, by another road: the curve as a list of points."""
    points = [(0.0, 0.0)]
    for i, error in enumerate(sorted(errors), start=1):
        if error < threshold:
            points.append((error, i / len(errors)))
    points.append((threshold, points[-1][1]))
    return trapezoid_of_points(*zip(*points, strict=True)) / threshold


def test_auc_equals_an_independent_implementation_on_1000_lists():
    rng = np.random.default_rng(4)
    worst = 0.0
    for _ in range(1000):
        errors = rng.exponential(rng.uniform(0.5, 30), rng.integers(1, 60))
        errors[rng.random(len(errors)) < 0.1] = np.inf
        errors[rng.random(len(errors)) < 0.1] = rng.choice([0.0, 5.0, 10.0, 20.0])
        found = metrics.error_auc(errors, (5, 10, 20))
        expected = [curve_area(errors.tolist(), t) for t in (5, 10, 20)]
        worst = max(worst, np.abs(np.subtract(found, expected)).max())
    assert worst < 1e-9


def test_mean_average_accuracy_by_hand():
    # Below 1..10: 0.5 counts ten times, 9.5 once, inf never: 11 of 30.
    assert metrics.mean_average_accuracy([0.5, 9.5, math.inf]) == pytest.approx(11 / 30)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 90.0, 179.0, 180.0])
def test_rotation_error_is_exact_from_0_to_180_degrees(angle):
    axis = np.array([1.0, -2.0, 0.5]) / np.linalg.norm([1.0, -2.0, 0.5])
    turn = cv2.Rodrigues(axis * np.radians(angle))[0]
    other = cv2.Rodrigues(np.array([0.3, 0.1, -0.7]))[0]
    assert metrics.rotation_error(other, other @ turn) == pytest.approx(angle, abs=1e-6)


def test_translation_error_ignores_sign_and_length():
    assert metrics.translation_error(np.array([1.0, 0, 0]), np.array([0, 3.0, 0])) == 90
    assert metrics.translation_error(np.array([-2.0, 0, 0]), np.array([1.0, 0, 0])) == 0
    tilted = np.array([1.0, np.tan(np.radians(3)), 0])
    assert metrics.translation_error(tilted, np.array([1.0, 0, 0])) == pytest.approx(3)
    assert metrics.translation_error(np.ones(3), np.zeros(3)) == 0


def test_no_match_has_no_precision():
    assert metrics.precision(np.array([0.0, 2e-4]), 1e-4) == 0.5
    assert metrics.precision(np.zeros(0), 1e-4) == 0.0


def test_corner_error_by_hand():
    shift = np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert metrics.corner_error(shift, np.eye(3), width=64, height=48) == pytest.approx(5)
    through_infinity = np.array([[1.0, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    assert metrics.corner_error(through_infinity, np.eye(3), width=64, height=48) == math.inf


def test_bootstrap_brackets_the_estimate_and_repeats():
    errors = np.random.default_rng(0).exponential(8, 100)
    first, second = (metrics.bootstrap_auc(errors, [10], samples=200, seed=3) for _ in range(2))
    assert first == second
    low, high = first[0]
    assert low < metrics.error_auc(errors, [10])[0] < high
    assert 0.02 < high - low < 0.3


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_points_convert_there_and_back(convention):
    points = np.random.default_rng(0).uniform(0, 300, (20, 2))
    resized = convention.convert(points, (640, 480), (832, 555))
    np.testing.assert_allclose(convention.convert(resized, (832, 555), (640, 480)), points)
    matrix = convention.conversion((640, 480), (832, 555))
    np.testing.assert_allclose(warp(points, matrix), resized)
    corner = EXACT.convert(np.array([[-0.5, -0.5]]), (10, 10), (20, 30))
    np.testing.assert_allclose(corner, [[-0.5, -0.5]])


def test_sizes_are_those_asked_for():
    assert Sizing(max_side=832).target((1600, 1067)) == (832, 555)
    assert Sizing(max_side=832).target((640, 480)) == (640, 480)
    assert Sizing(max_side=832, convention=PUBLISHED).target((640, 480)) == (832, 624)
    assert Sizing(max_side=832, convention=PUBLISHED).target((1600, 1067)) == (832, 552)
    assert Sizing(min_side=480).target((1000, 500)) == (960, 480)
    assert Sizing(size=(640, 480)).target((1296, 968)) == (640, 480)
    assert Sizing().target((313, 471)) == (313, 471)


@pytest.fixture(scope="module")
def scenes():
    return [s for s in rendered_scenes(10, (240, 320), seed=11) if baseline(*s) >= 0.05][:6]


def baseline(frame0, frame1) -> float:
    """Distance of the cameras over the median depth."""
    depth = np.median(frame0.depth[frame0.depth > 0])
    return float(np.linalg.norm(relative_pose(frame0, frame1)[:3, 3]) / depth)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_exact_correspondences_pass_every_protocol(scenes, name, tmp_path):
    import torch

    errors, protocol = [], protocol_named(name)
    assert len(scenes) >= 5
    sizing = Sizing(max_side=256, convention=protocol.convention)
    for frame0, frame1 in scenes:
        points0, points1 = exact_matches(frame0, frame1)
        assert len(points0) >= 100
        matches = Matches(
            torch.from_numpy(points0).float(),
            torch.from_numpy(points1).float(),
            torch.ones(len(points0)),
        )
        pair = EvalPair(
            "rendered",
            tmp_path,
            tmp_path,
            K0=frame0.K,
            K1=frame1.K,
            T_0to1=relative_pose(frame0, frame1),
        )
        prediction = Prediction(matches, (320, 240), (320, 240), 0.0, 0.0, 0.0)
        row = measure_pair(pair, prediction, sizing, protocol)
        errors.append(row["error"])
        assert row["precision_1e4"] == 1
    assert metrics.error_auc(errors, [5])[0] > 0.99


def test_no_matches_are_a_failure_that_counts(tmp_path):
    pair = EvalPair("none", tmp_path, tmp_path, K0=np.eye(3), K1=np.eye(3), T_0to1=np.eye(4))
    prediction = Prediction(Matches.empty(), (64, 48), (64, 48), 0.0, 0.0, 0.0)
    for name, sizing in itertools.product(PROTOCOLS, (Sizing(), Sizing(size=(32, 24)))):
        row = measure_pair(pair, prediction, sizing, protocol_named(name))
        assert row["error"] == math.inf
        assert row["failure"] == "no estimate"


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.diag([1, 1, -1.0]), 2 * np.eye(3)])
def test_the_error_of_what_is_no_rotation_is_refused(matrix):
    for estimate, truth in ((np.eye(3), matrix), (matrix, np.eye(3))):
        with pytest.raises(ValueError, match="no rotation"):
            metrics.rotation_error(estimate, truth)
