"""The web page: what it computes, and what it lets in."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from matcher.errors import UsageError
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
    "K": "",
}


def options(**changes: Any) -> MatchOptions:
    return app.options_of(**(SETTINGS | changes))


def found(matches: Matches | None = None) -> app.MatchedPair:
    points = torch.arange(20.0).reshape(10, 2)
    ten = Matches(points, points, torch.linspace(0.1, 1.0, 10))
    return app.MatchedPair(IMAGE, IMAGE, "compact", 1024, matches or ten, 1.25)


def moved(count: int = 30) -> Matches:
    """Points of a plane, all moved alike."""
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(0, 60, (count, 2)).astype(np.float32))
    return Matches(points, points + 3, torch.ones(count))


def seen_from_two_places() -> Matches:
    """Points in space, exact, for K of 60, 60, 40, 32."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-1, -1, 4), (1, 1, 8), (200, 3))
    views = [(places[:, :2] / places[:, 2:] * 60 + (40, 32)) for places in (points, points - 0.5)]
    ends = [torch.from_numpy(view.astype(np.float32)) for view in views]
    return Matches(ends[0], ends[1], torch.ones(200))


@pytest.mark.parametrize(("threshold", "count"), [(0.05, 10), (0.55, 5), (1.0, 0)])
def test_the_threshold_filters_without_matching_again(threshold: float, count: int) -> None:
    shown = app.show(found(), options(threshold=threshold))
    assert shown.numbers[0] == ["matches", str(count)]
    assert len(shown.record.matches) == count
    assert shown.picture.dtype == shown.coverage.dtype == np.uint8


def test_the_best_are_kept_where_a_number_is_given() -> None:
    shown = app.show(found(), options(threshold=0.05, top_k=3))
    assert shown.record.matches.scores.min() > 0.75
    assert len(shown.record.matches) == 3


def test_inliers_are_counted_and_kept_for_the_download() -> None:
    shown = app.show(found(moved()), options(geometry="homography"))
    assert shown.numbers[2] == ["inliers", "30"]
    assert shown.record.geometry == "homography"


def test_the_verdict_is_shown() -> None:
    right = moved(100)
    wrong = Matches(right.keypoints0, right.keypoints1.flip(0), right.scores)
    for geometry in ("none", "homography"):
        shown = app.show(found(wrong), options(geometry=geometry))
        assert "too few to tell" in app.verdict_text(shown)
        shown = app.show(found(right), options(geometry=geometry))
        assert app.verdict_text(shown).endswith("reliable**")


def test_a_homography_warps_whatever_geometry_is_chosen() -> None:
    for geometry in ("none", "homography"):
        shown = app.show(found(moved()), options(geometry=geometry))
        assert shown.warp is not None
        assert shown.warp_text.startswith("30 of 30 matches")
    nothing = app.show(found(), options(threshold=1.0))
    assert nothing.warp is None
    assert "No homography" in nothing.warp_text


def test_the_pose_needs_intrinsics_and_is_that_of_the_points() -> None:
    pair = found(seen_from_two_places())
    assert app.show(pair, options()).pose_text == app.WITHOUT_K
    text = app.show(pair, options(K="60, 60, 40 32")).pose_text
    assert "reliable" in text
    assert "-0.577" in text
    assert "T_0to1" in text


def test_intrinsics_are_read_with_or_without_brackets_and_nonsense_is_refused() -> None:
    assert app.read_intrinsics(" ") is None
    assert app.read_intrinsics("[500, 500,320\t240]") == (500, 500, 320, 240)
    with pytest.raises(UsageError, match="K"):
        app.read_intrinsics("wide angle")
    with pytest.raises(UsageError, match="K"):
        options(K="1, 2, 3")
    with pytest.raises(UsageError, match="K"):
        options(geometry="essential")


def test_a_missing_or_huge_image_is_refused() -> None:
    with pytest.raises(ValueError, match="image 1 is missing"):
        app.find(IMAGE, None, options())
    huge = np.broadcast_to(np.uint8(0), (10_000, 10_001, 3))
    with pytest.raises(ValueError, match="million pixels"):
        app.find(huge, IMAGE, options())


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
    shown = app.show(found(moved()), options(geometry="homography"))
    files = downloads.write_downloads(tmp_path, shown)
    assert len(Matches.load(files["matches.csv"])) == 30
    assert len(Matches.load(files["matches.h5"])) == 30
    assert set(files) == {*downloads.LABELS} - {downloads.COLMAP}


def test_the_file_for_colmap_opens_there(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    matches, how = seen_from_two_places(), options(K="60,60,39.5,31.5")
    with ZipFile(downloads.write_colmap(tmp_path, (IMAGE, IMAGE), matches, how)) as file:
        file.extractall(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "colmap.zip"}
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
        assert [image.name for image in database.read_all_images()] == ["image0.jpg", "image1.jpg"]
        assert database.num_inlier_matches() > 150
        (camera,) = database.read_all_cameras()
        assert camera.params.tolist() == [60, 60, 40, 32]
    for name in downloads.NAMES:
        assert Image.open(tmp_path / "out" / "images" / name).size == (80, 64)


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
    pair = app.find(*(np.asarray(Image.open(path)) for path in paths), options())
    assert pair.matches.turned == turned
    shown = app.show(pair, options())
    assert shown.record.verdict == "reliable"
    assert ("image 1 turned by 270 degrees" in app.verdict_text(shown)) == (turned == 3)


def test_paths_are_no_weights_over_http_either_and_gradio_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="extra web is not installed")
    from gradio_client import Client, handle_file  # pyright: ignore[reportMissingImports]

    from matcher.web.page import build_page, launch

    page = build_page(tmp_path)
    _, url, _ = launch(page, prevent_thread_lock=True, quiet=True)
    try:
        demo = [handle_file(str(ASSETS / f"demo{n}.jpg")) for n in (0, 1)]
        values = [*(SETTINGS | {"weights": "/etc/passwd"}).values()]
        with pytest.raises(Exception, match="list of choices"):
            Client(url, verbose=False).predict(*demo, *values, api_name="/match")
        assert capsys.readouterr().out == ""
    finally:
        page.close()
