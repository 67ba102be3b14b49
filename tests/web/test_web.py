"""The web page: what it computes, and what it lets in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from matcher.structures import Matches
from matcher.web import __main__ as program
from matcher.web import app

IMAGE = np.zeros((64, 80, 3), np.uint8)


def found() -> app.MatchedPair:
    points = torch.arange(20.0).reshape(10, 2)
    return app.MatchedPair(
        IMAGE, IMAGE, "compact", Matches(points, points, torch.linspace(0.1, 1.0, 10)), 1.25
    )


@pytest.mark.parametrize(("threshold", "count"), [(0.05, 10), (0.55, 5), (1.0, 0)])
def test_the_threshold_filters_without_matching_again(threshold: float, count: int) -> None:
    shown = app.show(found(), threshold, "none")
    assert shown.numbers[0] == ["matches", str(count)]
    assert len(shown.record.matches) == count
    assert shown.picture.dtype == shown.coverage.dtype == np.uint8


def test_inliers_are_counted_and_kept_for_the_download() -> None:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(0, 60, (30, 2)).astype(np.float32))
    matches = Matches(points, points + 3, torch.ones(30))
    pair = app.MatchedPair(IMAGE, IMAGE, "compact", matches, 0.0)
    shown = app.show(pair, 0.2, "homography")
    assert shown.numbers[2] == ["inliers", "30"]
    assert shown.record.geometry == "homography"


def test_the_verdict_is_shown() -> None:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.uniform(0, 60, (100, 2)).astype(np.float32))
    other = torch.from_numpy(rng.uniform(0, 60, (100, 2)).astype(np.float32))
    for geometry in ("none", "homography"):
        pair = app.MatchedPair(IMAGE, IMAGE, "compact", Matches(points, other, torch.ones(100)), 0)
        assert app.show(pair, 0.2, geometry).record.verdict == "too few to tell"
        pair = pair._replace(matches=Matches(points, points + 1, torch.ones(100)))
        assert app.show(pair, 0.2, geometry).record.verdict == "reliable"


def test_a_missing_or_huge_image_is_refused() -> None:
    with pytest.raises(ValueError, match="image 1 is missing"):
        app.find(IMAGE, None, "compact")
    huge = np.broadcast_to(np.uint8(0), (10_000, 10_001, 3))
    with pytest.raises(ValueError, match="million pixels"):
        app.find(huge, IMAGE, "compact")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "Compact"])
def test_weights_are_a_name_of_the_list_and_never_a_path(name: str) -> None:
    with pytest.raises(ValueError, match="no weights"):
        app.find(IMAGE, IMAGE, name)


@pytest.mark.skipif(find_spec("gradio") is not None, reason="gradio is installed")
def test_without_gradio_the_program_says_what_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main([]) == 2
    assert "quadmatch[web]" in capsys.readouterr().err


def test_the_page_is_built(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="extra web is not installed")
    from matcher.web.page import build_page

    page = build_page(tmp_path)
    assert page.title == "quadmatch"


def test_paths_are_no_weights_over_http_either(tmp_path: Path) -> None:
    pytest.importorskip("gradio", reason="extra web is not installed")
    from gradio_client import Client, handle_file  # pyright: ignore[reportMissingImports]

    from matcher.web.page import EXAMPLES, build_page, launch

    page = build_page(tmp_path)
    _, url, _ = launch(page, prevent_thread_lock=True, quiet=True)
    try:
        demo = [handle_file(str(EXAMPLES / f"demo{n}.jpg")) for n in (0, 1)]
        with pytest.raises(Exception, match="list of choices"):
            Client(url, verbose=False).predict(*demo, "/etc/passwd", 0.2, "none", api_name="/match")
    finally:
        page.close()
