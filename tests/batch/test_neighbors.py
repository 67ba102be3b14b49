"""Pairs of near images: by their descriptors, a COLMAP model or the GPS of their EXIF."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image
from PIL.ExifTags import GPS, IFD

from matcher.batch.folders import say_nothing
from matcher.batch.neighbors import (
    by_cameras,
    by_descriptor,
    by_place,
    by_points,
    chooser,
    nearest_pairs,
    read_model,
)
from matcher.batch.options import CollectionOptions
from matcher.batch.pairs import find_pairs
from matcher.batch.retrieval import describe, pooled
from matcher.errors import UsageError
from matcher.images.exif import gps_position
from matcher.predictor import load_matcher

ALL = np.arange(6, dtype=np.int32)


def on_a_line(places: list[float]):
    """Nearness of places on a line."""
    return lambda image: -np.abs(np.array(places) - places[image])


def test_each_image_gets_the_nearest_ones_and_no_pair_twice() -> None:
    near = on_a_line([0, 1, 2, 10, 11, 13])
    assert nearest_pairs(near, ALL, ALL, 1).tolist() == [[0, 1], [1, 2], [3, 4], [4, 5]]


def test_queries_get_the_nearest_of_the_database_alone() -> None:
    near = on_a_line([0, 10, 1, 2, 11, 12])
    found = nearest_pairs(near, ALL[:2], ALL[2:], 2)
    assert found.tolist() == [[0, 2], [0, 3], [1, 4], [1, 5]]


def test_a_query_may_come_behind_the_database() -> None:
    near = on_a_line([0, 10, 1, 2, 11, 12])
    assert nearest_pairs(near, ALL[4:], ALL[:4], 1).tolist() == [[4, 1], [5, 1]]


def test_what_is_never_near_is_in_no_pair() -> None:
    scores = np.full((6, 6), -np.inf)
    scores[0, 3] = scores[3, 0] = 1
    assert nearest_pairs(lambda i: scores[i], ALL, ALL, 4).tolist() == [[0, 3]]


def photograph(path: Path, place: tuple[float, float] | None, seed: int = 0) -> None:
    """A picture of noise that says where it was taken, in degrees north and east."""
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 96), dtype=np.uint8))
    exif = Image.Exif()
    if place is not None:
        north, east = place
        parts = [(float(int(abs(v))), float(abs(v) % 1 * 60), 0.0) for v in place]
        exif[IFD.GPSInfo] = {
            GPS.GPSLatitudeRef: "N" if north >= 0 else "S",
            GPS.GPSLatitude: parts[0],
            GPS.GPSLongitudeRef: "E" if east >= 0 else "W",
            GPS.GPSLongitude: parts[1],
        }
    image.save(path, exif=exif)


@pytest.mark.parametrize("where", [(48.3, 15.6), (-33.9, -70.7), (0.25, 179.9)])
def test_a_minute_of_latitude_is_a_nautical_mile(
    tmp_path: Path, where: tuple[float, float]
) -> None:
    photograph(tmp_path / "a.jpg", where)
    photograph(tmp_path / "b.jpg", (where[0] + 1 / 60, where[1]))
    places = [gps_position(tmp_path / f"{name}.jpg") for name in "ab"]
    assert np.linalg.norm(places[0] - places[1]) == pytest.approx(1852, rel=0.006)


def test_places_on_both_sides_of_the_date_line_are_near(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg", (0.5, 179.9999))
    photograph(tmp_path / "b.jpg", (0.5, -179.9999))
    places = [gps_position(tmp_path / f"{name}.jpg") for name in "ab"]
    assert np.linalg.norm(places[0] - places[1]) < 25


def test_a_camera_without_a_signal_has_no_place(tmp_path: Path) -> None:
    photograph(tmp_path / "a.jpg", (0.0, 0.0))
    photograph(tmp_path / "b.jpg", (0.0, 32.5))
    assert gps_position(tmp_path / "a.jpg") is None
    assert gps_position(tmp_path / "b.jpg") is not None


@pytest.mark.parametrize("suffix", ["jpg", "png", "gone"])
def test_a_file_that_does_not_say_has_no_place(tmp_path: Path, suffix: str) -> None:
    if suffix != "gone":
        photograph(tmp_path / f"a.{suffix}", None)
    assert gps_position(tmp_path / f"a.{suffix}") is None


def test_photographs_with_gps_make_pairs_and_the_others_are_told(tmp_path: Path) -> None:
    east = {"a": 15.0, "b": 15.001, "c": 15.002, "d": 16.0, "e": None}
    for name, place in east.items():
        photograph(tmp_path / f"{name}.jpg", None if place is None else (48.0, place))
    told: list[str] = []
    options = CollectionOptions(pairs=str(tmp_path), select="gps", window=1)
    pairs, _ = find_pairs(str(tmp_path), choose=chooser(options, told.append))
    assert [*pairs.named()] == [("a.jpg", "b.jpg"), ("b.jpg", "c.jpg"), ("c.jpg", "d.jpg")]
    assert told == ["left out  1 images without GPS in EXIF, such as e.jpg"]


def model() -> pycolmap.Reconstruction:
    """Four cameras a meter apart, the last looks back; 0 and 2 share three points, 1 and 3 one."""
    out = pycolmap.Reconstruction()
    out.add_camera_with_trivial_rig(
        pycolmap.Camera(model="PINHOLE", width=100, height=80, params=[90, 90, 50, 40], camera_id=1)
    )
    for i in range(4):
        turn = pycolmap.Rotation3d(np.diag([-1.0, 1, -1]) if i == 3 else np.eye(3))
        pose = pycolmap.Rigid3d(turn, -(turn.matrix() @ [float(i), 0, 0]))
        points = [pycolmap.Point2D(np.array([x, 5.0])) for x in range(3)]
        image = pycolmap.Image(name=f"{i}.jpg", camera_id=1, image_id=i + 1, points2D=points)
        out.add_image_with_trivial_frame(image, pose)
    for number, ends in enumerate([(0, 2), (0, 2), (0, 2), (1, 3)]):
        track = pycolmap.Track()
        for i in ends:
            track.add_element(i + 1, 0 if ends == (1, 3) else number)
        out.add_point3D(np.array([0.0, 0, 5]), track, np.zeros(3, np.uint8))
    return out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "sparse"
    path.mkdir()
    model().write_binary(str(path))
    return path


NAMES = ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "not_of_the_model.jpg"]
NUMBERS = np.arange(5, dtype=np.int32)


def test_images_of_a_model_pair_by_common_points(folder: Path) -> None:
    near = by_points(read_model(str(folder)), NAMES)
    assert near(0).tolist() == [3, -np.inf, 3, -np.inf, -np.inf]
    assert nearest_pairs(near, NUMBERS, NUMBERS, 3).tolist() == [[0, 2], [1, 3]]


def test_images_of_a_model_pair_by_cameras_that_look_the_same_way(folder: Path) -> None:
    near = by_cameras(read_model(str(folder)), NAMES)
    assert nearest_pairs(near, NUMBERS, NUMBERS, 1).tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize("select", ["covisible", "poses"])
def test_images_that_a_model_lacks_are_told(
    folder: Path, tmp_path: Path, select: Literal["covisible", "poses"]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in NAMES:
        photograph(photos / name, None)
    told: list[str] = []
    options = CollectionOptions(pairs=str(photos), select=select, model=str(folder))
    pairs, _ = find_pairs(str(photos), choose=chooser(options, told.append))
    assert len(pairs) > 1
    line = "left out  {} images, such as {}, that the model lacks, whose own are such as 0.jpg"
    assert told == [line.format(1, "not_of_the_model.jpg")]
    with pytest.raises(UsageError, match="E115"):
        find_pairs(str(tmp_path), choose=chooser(options, told.append))
    assert told[1:] == [line.format(5, "photos/0.jpg")]


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E111 .* holds no COLMAP model"):
        read_model(str(tmp_path))
    (tmp_path / "images.bin").write_bytes(b"\7" + b"\0" * 9)
    (tmp_path / "cameras.bin").write_bytes(b"\7" + b"\0" * 9)
    with pytest.raises(UsageError, match=r"E112 .* is no COLMAP model"):
        read_model(str(tmp_path))


def test_what_cannot_select_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E201 model: got None"):
        CollectionOptions(pairs="img", select="poses")
    (tmp_path / "list.txt").write_text("a.jpg b.jpg\n")
    options = CollectionOptions(pairs=str(tmp_path / "list.txt"), select="gps")
    with pytest.raises(UsageError, match=r"E204 .*is no folder"):
        find_pairs(options.pairs, choose=chooser(options, say_nothing))


def test_a_descriptor_has_length_1_and_knows_no_place() -> None:
    features = torch.randn(16, 60)
    descriptor = pooled(features)
    assert descriptor.shape == (32,)
    assert descriptor.norm() == pytest.approx(1)
    torch.testing.assert_close(pooled(features[:, torch.randperm(60)]), descriptor)
    assert descriptor @ pooled(-features) < 0.999


def test_a_changed_copy_of_an_image_is_its_nearest(tmp_path: Path, weights: str) -> None:
    rng = np.random.default_rng(0)
    names = []
    for i, grain in enumerate((3, 15, 60)):
        scene = Image.fromarray(rng.integers(0, 255, (grain, grain), dtype=np.uint8))
        for part, box in enumerate(((0, 0, 100, 80), (10, 5, 110, 85))):
            names.append(f"{i}{part}.png")
            view = scene.resize((120, 90), Image.Resampling.BICUBIC).crop(box)
            view.save(tmp_path / names[-1])
    options = CollectionOptions(pairs=str(tmp_path), select="retrieval", window=1, weights=weights)
    pairs, _ = find_pairs(str(tmp_path), choose=chooser(options, say_nothing))
    assert [*pairs.named()] == [("00.png", "01.png"), ("10.png", "11.png"), ("20.png", "21.png")]


def test_an_image_that_cannot_be_read_is_like_none(tmp_path: Path, weights: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    photograph(tmp_path / "b.jpg", None)
    paths = [str(tmp_path / f"{name}.jpg") for name in "ab"]
    found = describe(paths, load_matcher(weights))
    assert np.linalg.norm(found, axis=1).tolist() == [0, pytest.approx(1)]
    assert by_descriptor(found)(0).tolist() == [0, 0]


def test_the_program_matches_queries_against_the_nearest_of_a_database(
    program, tmp_path: Path
) -> None:
    for side, count in (("queries", 2), ("database", 5)):
        (tmp_path / side).mkdir()
        for i in range(count):
            photograph(tmp_path / side / f"{i}.png", None, seed=i)
    words = ("against=database", "select=retrieval", "window=1", "output=run", "refine=none")
    code, out, err = program("pairs=queries", *words)
    assert code == 0, err
    assert "pairs     2 of 4 images" in out


def test_places_need_not_all_be_known() -> None:
    near = by_place([np.zeros(3), None, np.ones(3)], ["a", "b", "c"], say_nothing)
    assert near(0).tolist() == [0, -np.inf, pytest.approx(-np.sqrt(3))]
    assert np.isneginf(near(1)).all()
