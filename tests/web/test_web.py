"""The web page: what it computes, and what it lets in."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ExifTags import IFD, Base

from eval.metrics import rotation_error, translation_error
from matcher.errors import ImageError, UsageError
from matcher.geometry.cameras import Camera
from matcher.images.cameras import parse_camera
from matcher.options import MatchOptions
from matcher.structures import Matches
from matcher.web import __main__ as program
from matcher.web import app, downloads

ASSETS = Path(__file__).resolve().parents[2] / "assets"
IMAGE = np.zeros((64, 80, 3), np.uint8)


SETTINGS = {
    "weights": "compact",
    "geometry": "none",
    "threshold": 0.2,
    "max_side": 1024,
    "top_k": 0,
    "estimator": "poselib",
}
NOTHING_KNOWN = "", ""


def options(**changes: Any) -> MatchOptions:
    return app.options_of(**(SETTINGS | changes))


def show(
    pair: app.MatchedPair, how: MatchOptions | None = None, texts: tuple[str, str] = NOTHING_KNOWN
) -> app.Shown:
    cameras = app.cameras_of(texts, (pair.image0, pair.image1))
    return app.show(pair, how or options(), cameras)


def found(matches: Matches | None = None) -> app.MatchedPair:
    points = torch.arange(20.0).reshape(10, 2)
    ten = Matches(points, points, torch.linspace(0.1, 1.0, 10))
    return app.MatchedPair(IMAGE, IMAGE, "compact", 1024, matches or ten, 1.25)


def moved(count: int = 30) -> Matches:
    """Points of a plane, all moved alike."""
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(0, 60, (count, 2)).astype(np.float32))
    return Matches(points, points + 3, torch.ones(count))


CAMERA = "60, 60, 39.5 31.5"
"""Of `seen_from_two_places`"""
TURN = cv2.Rodrigues(np.radians([10.0, 30.0, 5.0]))[0]
SHIFT = np.array([-3.0, 0.5, 1.0])


def seen_from_two_places() -> Matches:
    """Points in space, exact, from a camera that turns by `TURN` and moves by `SHIFT`."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 4), (1, 1, 8), (200, 3))
    places = points, points @ TURN.T + SHIFT
    views = [place[:, :2] / place[:, 2:] * 60 + (39.5, 31.5) for place in places]
    ends = [torch.from_numpy(view.astype(np.float32)) for view in views]
    return Matches(ends[0], ends[1], torch.ones(200))


@pytest.mark.parametrize(("threshold", "count"), [(0.05, 10), (0.55, 5), (1.0, 0)])
def test_the_threshold_filters_without_matching_again(threshold: float, count: int) -> None:
    shown = show(found(), options(threshold=threshold))
    assert shown.numbers[0] == ["matches", str(count)]
    assert len(shown.record.matches) == count
    assert shown.picture.dtype == shown.coverage.dtype == np.uint8


def test_the_best_are_kept_where_a_number_is_given() -> None:
    shown = show(found(), options(threshold=0.05, top_k=3))
    assert shown.record.matches.scores.min() > 0.75
    assert len(shown.record.matches) == 3


def test_inliers_are_counted_and_kept_for_the_download() -> None:
    shown = show(found(moved()), options(geometry="homography"))
    assert shown.numbers[2] == ["inliers", "30"]
    assert shown.record.geometry == "homography"


def test_the_verdict_is_shown() -> None:
    right = moved(100)
    wrong = Matches(right.keypoints0, right.keypoints1.flip(0), right.scores)
    for geometry in ("none", "homography"):
        shown = show(found(wrong), options(geometry=geometry))
        assert "too few to tell" in app.verdict_text(shown)
        shown = show(found(right), options(geometry=geometry))
        assert app.verdict_text(shown).endswith("reliable**")


def test_a_homography_warps_whatever_geometry_is_chosen() -> None:
    for geometry in ("none", "homography"):
        shown = show(found(moved()), options(geometry=geometry))
        assert shown.warp is not None
        assert shown.warp_text.startswith("30 of 30 matches")
    nothing = show(found(), options(threshold=1.0))
    assert nothing.warp is None
    assert "No homography" in nothing.warp_text


@pytest.mark.parametrize("texts", [(CAMERA, CAMERA), (CAMERA, ""), ("", CAMERA), ("", "")])
def test_the_pose_is_that_of_the_points_whichever_cameras_are_known(texts: tuple[str, str]) -> None:
    shown = show(found(seen_from_two_places()), options(geometry="pose"), texts)
    assert shown.pose_text.startswith("**reliable**")
    assert "T_0to1" in shown.pose_text
    focal = re.findall(r"([\d.]+) pixels \((.*?)\) of image (.)", shown.pose_text)
    assert [(how == "as given", image) for _, how, image in focal] == [
        (text != "", str(number)) for number, text in enumerate(texts)
    ]
    assert [float(value) for value, _, _ in focal] == pytest.approx([60, 60], rel=0.05)
    assert shown.record.T_0to1 is not None
    assert rotation_error(shown.record.T_0to1[:3, :3], TURN) < 1
    assert translation_error(shown.record.T_0to1[:3, 3], SHIFT) < 2


def test_a_lens_is_taken_into_account() -> None:
    lens = "60, 60, 39.5, 31.5, SIMPLE_RADIAL, -0.3"
    camera = parse_camera(lens)
    assert camera is not None
    straight = seen_from_two_places()
    ends = []
    for points in (straight.keypoints0, straight.keypoints1):
        rays = (points.numpy() - camera.center) / camera.focal
        bent = rays * (1 - 0.3 * (rays**2).sum(1, keepdims=True))
        ends.append(torch.from_numpy((bent * camera.focal + camera.center).astype(np.float32)))
    pair = found(Matches(ends[0], ends[1], torch.ones(200)))
    errors = []
    for text in (lens, CAMERA):
        pose = show(pair, options(geometry="pose"), (text, text)).record.T_0to1
        assert pose is not None
        errors.append(rotation_error(pose[:3, :3], TURN))
    assert errors[0] < 0.05
    assert errors[1] > 0.5


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("wide angle", "got 'wide angle'; expected fx, fy, cx, cy"),
        ("1, 2, 3", "got '1, 2, 3'; expected fx, fy, cx, cy"),
        ("60, 60, 40, 32, OPENCV, 0.1", "camera OPENCV: got .*; expected 8 finite numbers"),
        ("60, 60, 40, 32, LENS", "camera: got 'LENS'; expected a model of"),
        ("-60, 60, 40, 32", "camera PINHOLE"),
        ("1 PINHOLE 900 600 800 800 450 300", "got '80 x 64 pixels'; expected an image of"),
    ],
)
def test_what_is_no_camera_of_the_image_is_told_in_a_line(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"^E201 camera 1: {what}"):
        app.cameras_of(("", text), (IMAGE, IMAGE))


def test_a_camera_is_written_as_in_a_table_or_as_colmap_does() -> None:
    texts = "[60, 60,\t39.5 31.5]", "7 SIMPLE_RADIAL 160 128 120 80 64 0.1"
    first, second = app.cameras_of(texts, (IMAGE, IMAGE))
    assert first == Camera("PINHOLE", (60, 60, 39.5, 31.5), (80, 64))
    assert second == Camera("SIMPLE_RADIAL", (60, 39.5, 31.5, 0.1), (80, 64))
    empty = app.cameras_of((" ", None), (IMAGE, IMAGE))
    assert not any(camera.focal_known for camera in empty)


@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_fills_in_the_camera_of_the_picture_as_it_is_seen(
    tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = 50
    Image.new("RGB", (640, 480)).save(tmp_path / "a.jpg", exif=exif)
    center = (319.5, 239.5) if orientation == 1 else (239.5, 319.5)
    text = app.exif_text(str(tmp_path / "a.jpg"), 0)
    assert text == f"924.4, 924.4, {center[0]}, {center[1]}"
    image = app.read_upload(str(tmp_path / "a.jpg"), 0)
    assert app.cameras_of((text, ""), (image, image))[0].focal_known


def test_without_a_focal_length_in_exif_nothing_is_filled_in(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert app.exif_text(None, 0) == ""
    assert [app.exif_text(str(tmp_path / f"{name}.jpg"), 0) for name in "ab"] == ["", ""]


def test_a_missing_or_huge_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image 1 is missing"):
        app.read_upload(None, 1)
    Image.new("1", (10_000, 10_001)).save(tmp_path / "huge.png")
    with pytest.raises(ImageError, match=r"^E103 image 0: 10000 x 10001 pixels; limit 1.*00$"):
        app.read_upload(str(tmp_path / "huge.png"), 0)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "Compact"])
def test_weights_are_a_name_of_the_list_and_never_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="no weights"):
        options(weights=name)


def test_a_point_is_found_in_the_other_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (18, 24), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image).resize((192, 144), Image.Resampling.BICUBIC))
    image0, image1 = image[:, :160], image[:, 32:]
    place = app.find_point(app.find(image0, image1, options(max_side=256)), (100, 70))
    x, y = map(float, re.findall(r"\*\*\((.*), (.*)\)\*\*", place.text)[0])
    assert (x, y) == pytest.approx((68, 70), abs=1.5)
    assert place.picture0.shape[2] == place.picture1.shape[2] == 3


def test_the_downloads_hold_what_is_shown(tmp_path: Path) -> None:
    shown = show(found(moved()), options(geometry="homography"))
    files = downloads.write_downloads(tmp_path, shown)
    assert len(Matches.load(files["matches.csv"])) == 30
    assert len(Matches.load(files["matches.h5"])) == 30
    assert set(files) == {*downloads.LABELS} - {downloads.COLMAP}


def test_the_file_for_colmap_opens_there(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    matches, images = seen_from_two_places(), (IMAGE, IMAGE)
    cameras = app.cameras_of(("60,60,39.5,31.5", "60,60,39.5,31.5"), images)
    with ZipFile(downloads.write_colmap(tmp_path, images, matches, cameras)) as file:
        file.extractall(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "colmap.zip"}
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
        assert [image.name for image in database.read_all_images()] == ["image0.jpg", "image1.jpg"]
        assert database.num_inlier_matches() > 150
        (camera,) = database.read_all_cameras()
        assert camera.params.tolist() == [60, 60, 40, 32]
    for name in downloads.NAMES:
        assert Image.open(tmp_path / "out" / "images" / name).size == (80, 64)


def test_the_table_of_a_pair_tells_what_is_known() -> None:
    known, images = "60, 60, 39.5, 31.5, SIMPLE_RADIAL, 0.1", (IMAGE, IMAGE)
    one = downloads.table_of(app.cameras_of((known, known), images))
    assert one == f"*, {known}\n"
    half = downloads.table_of(app.cameras_of(("", known), images))
    assert half == f"image0.jpg, \nimage1.jpg, {known}\n"


def test_an_image_that_is_too_small_is_told() -> None:
    shown = show(found()._replace(matches=Matches.empty("too_small")))
    assert ", an image is smaller than 32 pixels: too few" in app.verdict_text(shown)


@pytest.mark.skipif(find_spec("gradio") is not None, reason="gradio is installed")
def test_without_gradio_the_program_says_what_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main([]) == 2
    assert "quadmatch[web]" in capsys.readouterr().err


def test_the_page_is_built(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="extra web is not installed")
    from matcher.web.page import build_page, examples

    page = build_page(tmp_path)
    assert page.title == "quadmatch"
    assert list(examples()) == ["flat", "wide", "indoor", "turned"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "turned"), [("flat", 0), ("wide", 0), ("turned", 3)])
def test_what_the_page_offers_is_small_and_reliable(name: str, turned: int) -> None:
    paths = [ASSETS / "examples" / f"{name}{n}.jpg" for n in (0, 1)]
    assert all(path.stat().st_size < 40_000 for path in paths)
    image0, image1 = (app.read_upload(str(path), n) for n, path in enumerate(paths))
    pair = app.find(image0, image1, options())
    assert pair.matches.turned == turned
    shown = show(pair, options())
    assert shown.record.verdict == "reliable"
    assert ("image 1 turned by 270 degrees" in app.verdict_text(shown)) == (turned == 3)


@pytest.mark.parametrize("index", [99, -1, "a", [0], 1e30, None])
def test_an_example_that_is_none_is_refused_without_a_traceback(index: Any) -> None:
    gradio = pytest.importorskip("gradio", reason="extra web is not installed")
    from matcher.web.page import take_example

    with pytest.raises(gradio.Error, match="no such example") as told:
        take_example(SimpleNamespace(index=index))  # pyright: ignore[reportArgumentType]
    assert not told.value.print_exception


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("gradio", reason="extra web is not installed")
    from matcher.web.page import build_page, launch

    page = build_page(tmp_path / "results")
    _, url, _ = launch(page, prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


def refusal(url: str, path: Path, **changes: Any) -> str:
    """What the page says of the image in a file beside one of the demo pair."""
    from gradio_client import Client, handle_file  # pyright: ignore[reportMissingImports]
    from gradio_client.exceptions import AppError  # pyright: ignore[reportMissingImports]

    both = [handle_file(str(each)) for each in (path, ASSETS / "demo1.jpg")]
    values = [*(SETTINGS | changes).values(), *NOTHING_KNOWN]
    with pytest.raises(AppError) as told:
        Client(url, verbose=False).predict(*both, *values, api_name="/match")
    return str(told.value)


def test_what_is_no_image_or_no_weights_is_told_over_http_and_gradio_is_silent(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    assert refusal(url, tmp_path / "a.jpg").startswith("E101 image 0: text, not an image")
    assert "list of choices" in refusal(url, ASSETS / "demo0.jpg", weights="/etc/passwd")
    assert capsys.readouterr().out == ""


def test_a_number_that_is_deleted_beside_a_slider_is_its_first_one() -> None:
    gradio = pytest.importorskip("gradio", reason="extra web is not installed")
    from matcher.web.page import offer_slider

    slider = offer_slider(0.1, 0.9, value=0.2, step=0.1, label="")
    assert [slider.preprocess(number) for number in (None, 0.7)] == [0.2, 0.7]
    with pytest.raises(gradio.Error, match="greater than maximum"):
        slider.preprocess(1.5)


def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="extra web is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = program.WebOptions(port=taken.getsockname()[1])
        with pytest.raises(UsageError, match=r"^E204 127\.0\.0\.1: cannot listen there on port"):
            program.serve(options, tmp_path)


@pytest.mark.slow
def test_a_server_that_is_terminated_leaves_no_uploads(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="extra web is not installed")
    import httpx  # pyright: ignore[reportMissingImports]

    words = [sys.executable, "-m", "matcher.web"]
    place = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=place) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[1]
        with (ASSETS / "demo0.jpg").open("rb") as image:
            assert httpx.post(f"{url}gradio_api/upload", files={"files": image}).is_success
        assert [*tmp_path.glob("quadmatch-*/uploads/*/demo0.jpg")]
        server.terminate()
    assert server.returncode == 128 + signal.SIGTERM
    assert [*tmp_path.iterdir()] == []
