"""Files of a pair for GDAL, QGIS and Hugin, and clouds of points: what comes back of them."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.transform import Affine, from_gcps
from rasterio.warp import Resampling, reproject
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from matcher.errors import ImageError, UsageError
from matcher.geometry.cameras import Camera
from matcher.geometry.epipolar import essential_from_pose
from matcher.interop.hugin import Picture, Tie, write_hugin
from matcher.interop.pair_files import write_for_others
from matcher.options import MatchOptions
from matcher.results.record import ImageRecord, MatchRecord
from matcher.structures import Matches
from tests.helpers.warped import CORNERS, SIZE, exact_matches, moved, offset, picture

WITHIN = 0.02
SHIFT = np.array([[1, 0, 3.37], [0, 1, -2.41], [0, 0, 1.0]])
AFFINE = np.array([[1.02, 0.03, 3.37], [-0.01, 0.98, -2.41], [0, 0, 1.0]])
PLACE = Affine(0.5, 0, 440_000, 0, -0.5, 5_100_000)
NORTHING = "EPSG:3763"
"""Portugal, whose axes are x and y; in EPSG:4326 latitude comes before longitude."""


def write_raster(path: Path, image: np.ndarray, **place: object) -> str:
    """A GeoTIFF of a picture of waves."""
    height, width = image.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        how = {"driver": "GTiff", "count": 1, "dtype": "float32", "width": width, "height": height}
        with rasterio.open(path, "w", **how, **place) as file:
            file.write(image.astype(np.float32), 1)
    return str(path)


def record_of(matches: Matches, *paths: str) -> MatchRecord:
    return MatchRecord(matches, *(ImageRecord(path, *SIZE) for path in paths))


def georeferenced(folder: Path, matrix: np.ndarray, crs: str = NORTHING) -> MatchRecord:
    """Image 0 has a place, image 1 a wrong one, and lies at `matrix` of it."""
    path0 = write_raster(folder / "a.tif", picture(np.eye(3)), transform=PLACE, crs=crs)
    path1 = write_raster(folder / "b.tif", picture(matrix), transform=Affine.scale(3), crs=crs)
    return record_of(exact_matches(matrix), path0, path1)


def test_gdal_brings_image_1_to_where_image_0_lies(tmp_path: Path) -> None:
    write_for_others(str(tmp_path / "b.vrt"), georeferenced(tmp_path, AFFINE), MatchOptions())
    warped = np.zeros((150, 200), np.float32)
    with rasterio.open(tmp_path / "b.vrt") as file:
        gcps, crs = file.gcps
        assert file.transform.is_identity
        assert file.tags()["AREA_OR_POINT"] == "Area"
        band = file.read(1)
    where = {"dst_transform": PLACE, "dst_crs": crs}
    reproject(band, warped, gcps=gcps, src_crs=crs, **where, resampling=Resampling.cubic_spline)
    assert crs == NORTHING
    wanted = cv2.GaussianBlur(picture(np.eye(3)), (0, 0), 0.5)
    assert offset(warped, wanted) < WITHIN


@pytest.mark.parametrize("crs", [NORTHING, "EPSG:4326"])
def test_control_points_lead_to_the_shift_that_was(tmp_path: Path, crs: str) -> None:
    write_for_others(str(tmp_path / "b.vrt"), georeferenced(tmp_path, SHIFT, crs), MatchOptions())
    with rasterio.open(tmp_path / "b.vrt") as file:
        gcps, found = file.gcps
    assert found == crs
    # From our pixels of image 1 to the world, and from there to those of image 0.
    to_image0 = ~PLACE @ from_gcps(gcps)
    corners = np.array([to_image0 @ tuple(corner) for corner in CORNERS + 0.5]) - 0.5
    assert np.abs(moved(SHIFT, corners) - CORNERS).max() < WITHIN


def test_area_or_point_of_image_0_makes_no_half_pixel(tmp_path: Path) -> None:
    record = georeferenced(tmp_path, SHIFT)
    write_for_others(str(tmp_path / "area.points"), record, MatchOptions())
    with rasterio.open(record.image0.name, "r+") as file:
        place = file.transform
        file.update_tags(AREA_OR_POINT="Point")
        file.transform = place
    write_for_others(str(tmp_path / "point.points"), record, MatchOptions())
    assert (tmp_path / "area.points").read_text() == (tmp_path / "point.points").read_text()


def qgis_points(path: Path) -> np.ndarray:
    """(N, 4) mapX, mapY, sourceX, sourceY."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    columns = "mapX", "mapY", "sourceX", "sourceY"
    return np.array([[float(row[name]) for name in columns] for row in csv.DictReader(lines)])


def test_qgis_counts_from_the_corner_and_upwards(tmp_path: Path) -> None:
    record = georeferenced(tmp_path, AFFINE)
    write_for_others(str(tmp_path / "b.points"), record, MatchOptions())
    points0, points1, _ = record.matches.numpy()
    world = np.array([PLACE @ tuple(point) for point in points0 + 0.5])
    expected = np.hstack([world, points1[:, :1] + 0.5, -points1[:, 1:] - 0.5])
    np.testing.assert_allclose(qgis_points(tmp_path / "b.points"), expected, rtol=1e-12)
    assert (tmp_path / "b.points").read_text().startswith("#CRS: PROJ")


def test_without_a_place_the_world_is_image_0_with_y_upwards(tmp_path: Path) -> None:
    paths = [
        write_raster(tmp_path / f"{i}.tif", picture(m)) for i, m in enumerate((np.eye(3), SHIFT))
    ]
    write_for_others(
        str(tmp_path / "b.points"), record_of(exact_matches(SHIFT), *paths), MatchOptions()
    )
    rows = qgis_points(tmp_path / "b.points")
    assert rows[:, 2] - rows[:, 0] == pytest.approx(SHIFT[0, 2])
    assert rows[:, 3] - rows[:, 1] == pytest.approx(-SHIFT[1, 2])


def test_inliers_alone_become_control_points(tmp_path: Path) -> None:
    inliers = np.arange(40) < 25
    record = replace(georeferenced(tmp_path, SHIFT), inliers=inliers)
    write_for_others(str(tmp_path / "b.points"), record, MatchOptions())
    assert len(qgis_points(tmp_path / "b.points")) == 25


def test_a_picture_that_gdal_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"no picture")
    record = record_of(exact_matches(SHIFT), *[str(tmp_path / "a.tif")] * 2)
    with pytest.raises(ImageError, match=r"E105 .*a\.tif: GDAL cannot read it"):
        write_for_others(str(tmp_path / "b.points"), record, MatchOptions())


PANORAMA = (640, 480)
TURN = Rotation.from_euler("zxy", [87.0, 6.0, 14.0], degrees=True).as_matrix()
"""On its side, so that half a pixel in both images would not cancel."""
FOCAL = 600.0


def camera(focal: float) -> np.ndarray:
    width, height = PANORAMA
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def turned(focal: float = FOCAL, turn: np.ndarray = TURN) -> np.ndarray:
    """The homography between two views of a camera that turns."""
    return camera(focal) @ turn @ np.linalg.inv(camera(focal))


def panorama(path: Path, focal: float | None = None) -> np.ndarray:
    """Write a project of two views; (N, 2) points of image 0 that both see."""
    everywhere = np.random.default_rng(2).uniform(0, np.array(PANORAMA) - 1.0, (400, 2))
    there = moved(turned(), everywhere)
    seen = ((there >= 0) & (there <= np.array(PANORAMA) - 1.0)).all(axis=1)
    ties = [Tie(0, 1, everywhere[seen], there[seen])]
    write_hugin(
        path, [Picture(str(path.parent / f"{i}.png"), *PANORAMA, focal) for i in (0, 1)], ties
    )
    return everywhere[seen]


def project(path: Path) -> tuple[list[dict[str, str]], np.ndarray]:
    """Parameters of the images of a project, and (N, 4) x, y, X, Y of its control points."""
    text = path.read_text()
    images = [
        dict(re.findall(r" ([a-zA-Z]+)(\S*)", line)) for line in re.findall("^i.*", text, re.M)
    ]
    points = re.findall(r"^c n0 N1 x(\S+) y(\S+) X(\S+) Y(\S+) t0$", text, re.M)
    return images, np.array(points, float)


@pytest.mark.parametrize("focal", [None, FOCAL])
def test_hugins_model_solves_a_project_to_the_turn_that_was(
    tmp_path: Path, focal: float | None
) -> None:
    seen = panorama(tmp_path / "a.pto", focal)
    images, points = project(tmp_path / "a.pto")
    assert [(image["w"], image["h"]) for image in images] == [("640", "480")] * 2
    assert ("v v0" in (tmp_path / "a.pto").read_text().splitlines()) == (focal is None)
    start = 320 / np.tan(np.radians(float(images[0]["v"])) / 2)
    if focal:
        assert start == pytest.approx(focal, rel=1e-8)

    def residuals(values: np.ndarray) -> np.ndarray:
        turn = Rotation.from_rotvec(values[:3]).as_matrix()
        return (moved(turned(values[3] * start, turn), points[:, :2]) - points[:, 2:]).ravel()

    found = least_squares(residuals, [0, 0, 1.5, 1.0]).x
    ours = turned(found[3] * start, Rotation.from_rotvec(found[:3]).as_matrix())
    assert len(points) == len(seen) > 100
    assert np.abs(moved(ours, seen) - moved(turned(), seen)).max() < WITHIN


def run(*words: str, said: str = "") -> str:
    """What a program says."""
    return subprocess.run(words, input=said, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not shutil.which("autooptimiser"), reason="Hugin's tools are not installed")
def test_hugins_own_optimizer_finds_the_turn_that_was(tmp_path: Path) -> None:
    seen = panorama(tmp_path / "a.pto")
    for i in (0, 1):
        Image.new("L", PANORAMA).save(tmp_path / f"{i}.png")
    solved = str(tmp_path / "solved.pto")
    run("autooptimiser", "-n", "-o", solved, str(tmp_path / "a.pto"))

    def carried(points: np.ndarray, *how: str) -> np.ndarray:
        lines = "\n".join(f"{x} {y}" for x, y in points.tolist()) + "\n"
        out = run("pano_trafo", *how[:-1], solved, how[-1], said=lines)
        return np.array([line.split() for line in out.splitlines()], float)

    there = carried(carried(seen, "0"), "-r", "1")
    assert np.abs(there - moved(turned(), seen)).max() < WITHIN


def test_names_that_a_project_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E201 export"):
        write_hugin(tmp_path / "a.pto", [Picture('a"b.jpg', 10, 10)], [])


def two_views(folder: Path) -> tuple[MatchRecord, np.ndarray]:
    """Points of a scene that two cameras see, one of them behind both in what the matches say."""
    K = np.array([[150, 0, 99.5], [0, 150, 74.5], [0, 0, 1.0]])
    points = np.random.default_rng(4).uniform([-1, -1, 4], [1, 1, 8], (30, 3))
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", 10, degrees=True).as_matrix()
    T[:3, 3] = [-1, 0, 0]
    there = points @ T[:3, :3].T + T[:3, 3]
    pixels = [moved(K, p[:, :2] / p[:, 2:]) for p in (points, there)]
    matches = Matches(*map(torch.from_numpy, pixels), torch.ones(30))
    paths = []
    for i in (0, 1):
        paths.append(str(folder / f"{i}.png"))
        Image.new("RGB", SIZE, (200, 100, 50)).save(paths[-1])
    essential = essential_from_pose(T[:3, :3], T[:3, 3])
    record = record_of(matches, *paths)
    inliers = np.ones(30, bool)
    cameras = Camera.of_matrix(K), Camera.of_matrix(K)
    found = {"model": essential, "T_0to1": T, "inliers": inliers, "cameras": cameras}
    return replace(record, geometry="essential", **found), points


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    header, _, body = path.read_bytes().partition(b"end_header\n")
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert f"element vertex {len(rows)}\n".encode() in header
    return rows["xyz"], rows["rgb"]


def test_a_cloud_holds_the_points_in_the_frame_of_camera_0(tmp_path: Path) -> None:
    record, points = two_views(tmp_path)
    options = MatchOptions(geometry="essential", K=(150.0, 150.0, 99.5, 74.5), output="a.ply")
    write_for_others(str(tmp_path / "a.ply"), record, options)
    xyz, rgb = read_ply(tmp_path / "a.ply")
    np.testing.assert_allclose(xyz, points, atol=1e-4)
    assert (rgb == [200, 100, 50]).all()


def test_matches_that_meet_behind_a_camera_are_not_in_the_cloud(tmp_path: Path) -> None:
    record, _ = two_views(tmp_path)
    assert record.T_0to1 is not None
    backwards = record.T_0to1.copy()
    backwards[:3, 3] *= -1
    options = MatchOptions(geometry="essential", K=(150.0, 150.0, 99.5, 74.5), output="a.ply")
    write_for_others(str(tmp_path / "a.ply"), replace(record, T_0to1=backwards), options)
    assert len(read_ply(tmp_path / "a.ply")[0]) == 0
    write_for_others(str(tmp_path / "b.ply"), replace(record, T_0to1=None, inliers=None), options)
    assert len(read_ply(tmp_path / "b.ply")[0]) == 0


def test_a_cloud_without_a_pose_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="E201 geometry: got 'none'; expected essential"):
        MatchOptions(output="a.ply")
