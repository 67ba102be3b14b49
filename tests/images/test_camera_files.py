"""Which camera an image has: tables, models of COLMAP, EXIF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from matcher.errors import Code, UsageError
from matcher.geometry.cameras import Camera
from matcher.geometry.lenses import LENSES
from matcher.images.cameras import (
    CameraTable,
    camera_text,
    find_camera,
    parse_camera,
    read_cameras,
)
from tests.images.test_exif import photograph

SIZE = (640, 480)
TABLE = """\
image,fx,fy,cx,cy,model,parameters
# the rig
left,500,510,319.5,239.5
left/top,600,600,310,250,SIMPLE_RADIAL,-0.1
left/top/7.jpg,700,700,319.5,239.5
phone/
b c.jpg,800,800,319.5,239.5
"""


def table(tmp_path: Path, text: str, name: str = "cameras.csv") -> CameraTable:
    path = tmp_path / name
    path.write_text(text)
    found = read_cameras(str(path))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("image", "focal", "owner"),
    [
        ("left/a.jpg", 500, "left"),
        ("photos/left/a.jpg", 500, "left"),
        ("left/below/a.jpg", 500, "left"),
        ("left/top/a.jpg", 600, "left/top"),
        ("left/top/7.jpg", 700, "left/top/7.jpg"),
        ("b c.jpg", 800, "b c.jpg"),
        ("phone/1.jpg", 768, "phone"),
        ("right/a.jpg", 768, "right/a.jpg"),
    ],
)
def test_an_image_has_the_nearest_camera(
    tmp_path: Path, image: str, focal: float, owner: str
) -> None:
    found = table(tmp_path, TABLE).find(image, SIZE)
    assert (found.camera.focal[0], found.name) == (focal, owner)
    assert found.camera.focal_known == (focal != 768)


def test_a_row_holds_a_lens(tmp_path: Path) -> None:
    camera = table(tmp_path, TABLE).find("left/top/1.jpg", SIZE).camera
    assert camera == Camera("SIMPLE_RADIAL", (600, 310, 250, -0.1), SIZE)


def test_a_star_stands_for_all_images(tmp_path: Path) -> None:
    assert table(tmp_path, "*,500,500,9,9").find("any/a.jpg", SIZE).camera.focal[0] == 500


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a.jpg,500,500,320", "line 2 is no camera: 3 numbers, expected fx, fy, cx, cy"),
        ("a.jpg,500,500,320,x", "line 2 is no camera: could not convert"),
        ("a.jpg,500,500,320,240,PINHOLES", "line 2 is no camera: got 'PINHOLES'"),
        ("a.jpg,500,500,320,240,OPENCV,0.1", "expected 8 finite numbers"),
        ("a.jpg,500,600,320,240,RADIAL,0.1,0", "RADIAL has one focal length"),
        ("a.jpg,-5,500,320,240", "expected a camera"),
        ("a.jpg;500;500;320;240", "cells stand between commas"),
        ("a.jpg\t500\t500\t320\t240", "cells stand between commas"),
        ('"a.jpg,500,500,320,240', "unexpected end of data"),
        ("b.jpg,500,500,320,240", "b.jpg has one already"),
    ],
)
def test_a_faulty_row_is_told_in_a_line(tmp_path: Path, row: str, told: str) -> None:
    with pytest.raises(UsageError, match="E113") as caught:
        table(tmp_path, f"b.jpg,1,1,0,0\n{row}\n")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", ["a.jpg,nan,500,320,240", "a.jpg,5O0,500,320,240"])
def test_a_faulty_first_row_is_not_taken_for_names_of_columns(tmp_path: Path, row: str) -> None:
    with pytest.raises(UsageError, match=r"E113 .*line 1 is no camera"):
        table(tmp_path, f"{row}\nb.jpg,1,1,0,0\n")


@pytest.mark.parametrize("text", ["", "name,fx,fy,cx,cy\n"])
def test_a_table_without_a_camera_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"E112 .*holds no camera"):
        table(tmp_path, text)


def test_a_list_of_queries_is_not_taken_for_cameras_of_colmap(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E113 .*a\.jpg stands where COLMAP has a number"):
        table(tmp_path, "a.jpg SIMPLE_PINHOLE 640 480 500 320 240\n", "queries.txt")


def test_blank_lines_between_images_of_colmap_are_left_out(tmp_path: Path) -> None:
    images = "\n# list\n1 1 0 0 0 0 0 0 1 a.jpg\n\n\n2 1 0 0 0 0 0 0 1 b.jpg\n1 2 -1\n\n"
    (tmp_path / "images.txt").write_text(images)
    cameras = table(tmp_path, "1 SIMPLE_PINHOLE 640 480 500 320 240\n", "cameras.txt")
    assert list(cameras.entries) == ["a.jpg", "b.jpg"]


def test_cameras_of_colmap_go_by_its_images(tmp_path: Path) -> None:
    text = (
        "# list\n1 OPENCV 640 480 500 510 320 240 0.1 0 0 0\n2 SIMPLE_PINHOLE 800 600 700 400 300\n"
    )
    images = "# list\n1 1 0 0 0 0 0 0 1 a.jpg\n\n2 1 0 0 0 0 0 0 2 b c.jpg\n1 2 -1\n"
    (tmp_path / "images.txt").write_text(images)
    cameras = table(tmp_path, text, "cameras.txt")
    assert cameras.find("a.jpg", SIZE).camera.params[:4] == (500, 510, 319.5, 239.5)
    half = cameras.find("b c.jpg", (400, 300)).camera
    assert half.params == (350, 199.5, 149.5)
    assert not cameras.find("stranger.jpg", SIZE).camera.focal_known
    with pytest.raises(UsageError, match=r"E201 .*cameras.txt: a.jpg: got '640 x 640 pixels'"):
        cameras.find("a.jpg", (640, 640))


def test_one_camera_of_colmap_alone_is_of_all_images(tmp_path: Path) -> None:
    cameras = table(tmp_path, "1 SIMPLE_PINHOLE 640 480 500 320 240\n", "cameras.txt")
    assert cameras.find("any.jpg", SIZE).camera.focal[0] == 500
    two = "1 SIMPLE_PINHOLE 640 480 500 320 240\n2 SIMPLE_PINHOLE 640 480 500 320 240\n"
    with pytest.raises(UsageError, match=r"E112 .*holds 2 cameras; put COLMAP's images.txt"):
        table(tmp_path, two, "cameras.txt")


@pytest.mark.parametrize("binary", [False, True])
def test_the_cameras_of_a_model_are_read_in_both_forms(tmp_path: Path, binary: bool) -> None:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        camera_id=7, model="RADIAL", width=640, height=480, params=[500, 320, 240, 0.1, 0]
    )
    model.add_camera_with_trivial_rig(camera)
    model.add_image_with_trivial_frame(
        pycolmap.Image(name="a.jpg", camera_id=7, image_id=1), pycolmap.Rigid3d()
    )
    (model.write_binary if binary else model.write_text)(tmp_path)
    found = read_cameras(str(tmp_path))
    assert found is not None
    assert found.find("a.jpg", SIZE).camera == Camera("RADIAL", (500, 319.5, 239.5, 0.1, 0), SIZE)


def test_photographs_of_one_focal_length_share_a_camera(tmp_path: Path) -> None:
    assert read_cameras("exif") is None
    paths = [str(photograph(tmp_path / f"{i}.jpg", SIZE, {0xA405: 50})) for i in range(2)]  # pyright: ignore[reportArgumentType]
    found = [find_camera(None, f"{i}.jpg", path, SIZE) for i, path in enumerate(paths)]
    assert found[0] == found[1]
    plain = str(photograph(tmp_path / "plain.jpg", SIZE, {}))
    assert find_camera(None, "plain.jpg", plain, SIZE).name == "plain.jpg"


@pytest.mark.parametrize("name", ["missing.csv", "cameras.csv"])
def test_what_is_no_file_of_cameras_is_told_in_a_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "cameras.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError) as caught:
        read_cameras(str(tmp_path / name))
    assert caught.value.code in (Code.MISSING_FILE, Code.UNREADABLE_LIST)


def test_a_table_of_other_images_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "cameras.csv"
    table.write_text("photos/a.jpg,500,500,320,240\n")
    assert read_cameras(str(table), ["b.jpg", "/home/photos/a.jpg"]) is not None
    with pytest.raises(UsageError, match=r"E112 .*names none of the images, such as b\.jpg"):
        read_cameras(str(table), ["b.jpg", "a.jpg"])
    table.write_text("*,500,500,320,240\n")
    assert read_cameras(str(table), ["b.jpg"]) is not None


@pytest.mark.parametrize("model", LENSES)
def test_a_camera_in_words_is_read_as_it_was(model: str) -> None:
    lens = LENSES[model]
    focals = (500.0, 510.0)[: lens.focals]
    camera = Camera(model, (*focals, 319.5, 239.25, *(0.01,) * lens.parameters))
    read = parse_camera(camera_text(camera))
    assert read is not None
    np.testing.assert_allclose(read.K, camera.K)
    np.testing.assert_allclose(
        read.rays(np.array([[9.0, 7]])), camera.rays(np.array([[9.0, 7]])), rtol=1e-6
    )
