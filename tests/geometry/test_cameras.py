"""Cameras: COLMAP's models as COLMAP has them, other sizes, what is refused."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest

from matcher.errors import UsageError
from matcher.geometry.cameras import Camera
from matcher.geometry.lenses import LENSES

SIZE = (640, 480)
BENT = {
    "SIMPLE_RADIAL": [-0.2],
    "RADIAL": [-0.25, 0.06],
    "OPENCV": [-0.28, 0.07, 0.002, -0.003],
    "FULL_OPENCV": [-0.3, 0.1, 0.001, -0.002, -0.02, 0.05, -0.01, 0.003],
    "FOV": [0.9],
    "SIMPLE_DIVISION": [-0.2],
    "DIVISION": [-0.3],
    "EUCM": [0.6, 1.1],
    "SIMPLE_RADIAL_FISHEYE": [-0.05],
    "RADIAL_FISHEYE": [-0.04, 0.01],
    "OPENCV_FISHEYE": [-0.03, 0.01, -0.004, 0.001],
    "THIN_PRISM_FISHEYE": [-0.03, 0.01, 0.002, -0.001, -0.004, 0.001, 0.003, -0.002],
    "RAD_TAN_THIN_PRISM_FISHEYE": [
        -0.03, 0.01, -0.004, 0.001, 0.0005, -0.0002, 0.002, -0.001, 0.001, -0.0005, 0.002, 0.0007
    ],
}  # fmt: skip


def a_camera(model: str) -> Camera:
    focals = (600.0, 610.0)[: LENSES[model].focals]
    return Camera(model, (*focals, 310.0, 250.0, *BENT.get(model, [])), SIZE)


def of_pycolmap(camera: Camera) -> pycolmap.Camera:
    return pycolmap.Camera(
        model=camera.model, width=SIZE[0], height=SIZE[1], params=camera.colmap_params
    )


def project(camera: Camera, points: np.ndarray) -> np.ndarray:
    """(N, 2) pixels where COLMAP projects (N, 3) points."""
    return np.asarray(of_pycolmap(camera).img_from_cam(points)) - 0.5


def test_the_models_are_those_of_colmap_but_one() -> None:
    theirs = set(pycolmap.CameraModelId.__members__) - {"INVALID"}
    assert set(LENSES) == theirs - {"EQUIRECTANGULAR"}


@pytest.mark.parametrize("model", LENSES)
def test_rays_are_those_of_colmap(model: str) -> None:
    x, y = np.meshgrid(np.linspace(0, 639, 41), np.linspace(0, 479, 31))
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    camera = a_camera(model)
    rays = np.asarray(of_pycolmap(camera).cam_from_img(points + 0.5))
    assert np.isfinite(rays).all()
    np.testing.assert_allclose(camera.rays(points), rays, atol=1e-7)


@pytest.mark.parametrize("model", LENSES)
def test_rays_lead_back_to_their_pixels(model: str) -> None:
    rng = np.random.default_rng(0)
    camera = a_camera(model)
    directions = np.c_[rng.uniform(-0.4, 0.4, (200, 2)), np.ones(200)]
    pixels = project(camera, directions)
    np.testing.assert_allclose(camera.rays(pixels), directions[:, :2], atol=1e-7)


def test_pixels_that_no_ray_reaches_are_not_a_number() -> None:
    camera = Camera("SIMPLE_RADIAL", (400.0, 320.0, 240.0, -0.3), SIZE)
    assert np.isnan(camera.rays(np.array([[3000.0, 240.0]]))).all()
    fisheye = Camera("SIMPLE_FISHEYE", (200.0, 320.0, 240.0), SIZE)
    assert np.isnan(fisheye.rays(np.array([[639.0, 240.0]]))).all()
    assert np.isfinite(fisheye.rays(np.array([[600.0, 240.0]]))).all()


def test_a_pinhole_with_the_same_K_sees_undistorted_points_where_they_say() -> None:
    camera = a_camera("OPENCV")
    points = np.array([[10.0, 20.0], [320.0, 240.0], [600.0, 400.0]])
    pinhole = Camera.of_matrix(camera.K)
    np.testing.assert_allclose(pinhole.rays(camera.undistorted(points)), camera.rays(points))


@pytest.mark.parametrize("model", ["SIMPLE_RADIAL", "THIN_PRISM_FISHEYE"])
def test_a_point_keeps_its_ray_at_another_size(model: str) -> None:
    camera = a_camera(model)
    points = np.array([[10.0, 20.0], [600.0, 400.0]])
    half = camera.resized((320, 240))
    np.testing.assert_allclose(half.rays((points + 0.5) / 2 - 0.5), camera.rays(points))
    assert half.resized(SIZE).params == pytest.approx(camera.params)


@pytest.mark.parametrize(
    ("model", "params", "told"),
    [
        ("PINHOLES", (500.0, 500.0, 320.0, 240.0), "E201 camera: got 'PINHOLES'"),
        ("EQUIRECTANGULAR", (640.0, 480.0), "E201 camera: got 'EQUIRECTANGULAR'"),
        ("PINHOLE", (500.0, 320.0, 240.0), "expected 4 finite numbers"),
        ("SIMPLE_RADIAL", (500.0, 320.0, 240.0, float("nan")), "expected 4 finite numbers"),
        ("SIMPLE_PINHOLE", (-500.0, 320.0, 240.0), "expected a camera"),
    ],
)
def test_what_is_no_camera_is_refused_in_one_line(model: str, params: tuple, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Camera(model, params, SIZE)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_guess_is_the_one_of_colmap() -> None:
    camera = Camera.guessed(SIZE)
    assert camera.focal.tolist() == [768.0, 768.0]
    assert not camera.focal_known
    assert camera.with_focal(700.0).focal.tolist() == [700.0, 700.0]


def test_an_image_of_another_shape_is_of_another_camera() -> None:
    assert a_camera("PINHOLE").resized((213, 160)).size == (213, 160)
    with pytest.raises(UsageError, match=r"E201 camera: got '640 x 640 pixels'"):
        a_camera("PINHOLE").resized((640, 640))
