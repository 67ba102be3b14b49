"""Relative pose through lenses, and with focal lengths that nobody knows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from matcher.geometry.cameras import Camera
from matcher.geometry.lenses import LENSES
from matcher.geometry.pose import CameraPose, estimate_camera_pose
from matcher.geometry.robust import Estimator
from tests.geometry.test_cameras import SIZE, a_camera, project

ROTATION = cv2.Rodrigues(np.array([0.1, 0.25, -0.05]))[0]
TRANSLATION = np.array([0.9, 0.1, 0.3]) / np.linalg.norm([0.9, 0.1, 0.3])
PINHOLE = Camera("SIMPLE_PINHOLE", (700.0, 319.5, 239.5), SIZE)
WIDER = Camera("SIMPLE_PINHOLE", (520.0, 399.5, 299.5), (800, 600))


def views(camera0: Camera, camera1: Camera, wrong: float = 0.2) -> list[np.ndarray]:
    """(300, 2) pixels each, with 0.3 pixels of noise, a share of them wrong."""
    rng = np.random.default_rng(0)
    points = np.c_[rng.uniform(-1, 1, (300, 2)) * [1.4, 1.0], rng.uniform(3, 8, 300)]
    moved = points @ ROTATION.T + TRANSLATION
    out = [
        project(camera, there) + rng.normal(0, 0.3, (300, 2))
        for camera, there in ((camera0, points), (camera1, moved))
    ]
    bad = int(300 * wrong)
    out[1][:bad] = rng.uniform(0, SIZE, (bad, 2))
    return out


def degrees(pose: CameraPose | None) -> float:
    assert pose is not None
    turn = np.linalg.norm(cv2.Rodrigues(pose.rotation.T @ ROTATION)[0])
    return float(np.degrees(max(turn, np.arccos(np.clip(pose.translation @ TRANSLATION, -1, 1)))))


@pytest.mark.parametrize("name", ["poselib", "magsac"])
@pytest.mark.parametrize("model", LENSES)
def test_the_pose_is_right_through_every_lens(model: str, name: str) -> None:
    camera = a_camera(model)
    points = views(camera, camera)
    estimator = Estimator(name)  # pyright: ignore[reportArgumentType]
    pose = estimate_camera_pose(*points, camera0=camera, camera1=camera, estimator=estimator)
    assert degrees(pose) < 1.0
    assert pose is not None
    assert 200 < pose.inliers.sum() < 260


def test_a_match_that_no_ray_reaches_is_no_inlier() -> None:
    camera = Camera("SIMPLE_RADIAL", (600.0, 320.0, 240.0, -0.2), SIZE)
    points0, points1 = views(camera, camera)
    points0[-1] = 4000.0
    pose = estimate_camera_pose(points0, points1, camera0=camera, camera1=camera)
    assert degrees(pose) < 1.0
    assert pose is not None
    assert not pose.inliers[-1]


def test_a_shared_focal_length_is_found() -> None:
    unknown = Camera.guessed(SIZE)
    pose = estimate_camera_pose(*views(PINHOLE, PINHOLE), camera0=unknown, camera1=unknown)
    assert degrees(pose) < 3
    assert pose is not None
    assert pose.camera0.focal[0] == pytest.approx(700, rel=0.03)
    assert pose.camera0 == pose.camera1


@pytest.mark.parametrize("turned", [False, True])
def test_a_focal_length_beside_a_known_camera_is_found(turned: bool) -> None:
    cameras = PINHOLE, WIDER
    points = views(*cameras)
    given = [PINHOLE, Camera.guessed((800, 600))]
    if turned:
        given = [Camera.guessed(SIZE), WIDER]
    pose = estimate_camera_pose(*points, camera0=given[0], camera1=given[1])
    assert degrees(pose) < 3
    assert pose is not None
    for found, true in zip((pose.camera0, pose.camera1), cameras, strict=True):
        assert found.focal[0] == pytest.approx(true.focal[0], rel=0.05)


def test_two_unknown_focal_lengths_are_found() -> None:
    unknown = Camera.guessed(SIZE), Camera.guessed((800, 600))
    pose = estimate_camera_pose(*views(PINHOLE, WIDER), camera0=unknown[0], camera1=unknown[1])
    assert degrees(pose) < 10
    assert pose is not None
    assert pose.camera0.focal[0] == pytest.approx(700, rel=0.2)
    assert pose.camera1.focal[0] == pytest.approx(520, rel=0.2)


@pytest.mark.parametrize("count", [0, 5, 7])
def test_too_few_matches_give_none(count: int) -> None:
    unknown = Camera.guessed(SIZE)
    points = [p[:count] for p in views(PINHOLE, PINHOLE)]
    assert estimate_camera_pose(*points, camera0=unknown, camera1=unknown) is None


def test_a_line_gives_none() -> None:
    unknown, line = Camera.guessed(SIZE), np.outer(np.arange(50.0), [1.0, 2.0])
    assert estimate_camera_pose(line, line, camera0=unknown, camera1=unknown) is None
    assert estimate_camera_pose(line, line, camera0=unknown, camera1=PINHOLE) is None


def test_distorted_points_are_off_without_their_camera() -> None:
    camera = a_camera("OPENCV")
    pinhole = Camera.of_matrix(camera.K, SIZE)
    points = views(camera, camera, wrong=0)
    pose = estimate_camera_pose(*points, camera0=pinhole, camera1=pinhole)
    right = estimate_camera_pose(*points, camera0=camera, camera1=camera)
    assert degrees(pose) > 2 * degrees(right)
