"""Unrelated photographs: pairs are drawn, matched as a collection and judged; runs go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.unrelated import LIST, draw_pairs, main
from matcher.errors import UsageError
from matcher.files import only_writer

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of one place and one of nothing."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("demo0.jpg", "demo1.jpg"):
        Image.open(ASSETS / name).resize((320, 240)).save(folder / name, quality=95)
    noise = np.random.default_rng(0).integers(0, 255, (240, 320), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


def test_pairs_are_different_and_fewer_are_the_first_of_more() -> None:
    pairs = draw_pairs(40, 200, seed=3)
    assert len({frozenset(pair) for pair in pairs}) == 200
    assert all(first != second and 0 <= min(first, second) < 40 for first, second in pairs)
    assert draw_pairs(40, 50, seed=3) == pairs[:50]
    assert draw_pairs(40, 50, seed=4) != pairs[:50]


def test_a_second_evaluation_leaves_the_list_of_the_first(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_writer(tmp_path, ""):
        assert main([f"photos={photos}", f"output={tmp_path}", "pairs=1"]) == 2
    assert capsys.readouterr().err.startswith("E207 ")
    assert not (tmp_path / LIST).exists()


def test_more_pairs_than_there_are_are_refused() -> None:
    assert len(draw_pairs(5, 10, seed=0)) == 10
    with pytest.raises(UsageError, match="at most 10"):
        draw_pairs(5, 11, seed=0)


def test_pairs_of_one_place_are_counted_and_named_and_a_run_goes_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"photos={photos}", f"output={tmp_path / 'out'}", "side=256", "rotate=off"]
    assert main([*words, "pairs=1"]) == 0
    assert "of 1 pairs reliable" in capsys.readouterr().out
    assert main([*words, "pairs=3"]) == 0
    told = capsys.readouterr().out
    assert "verdicts  1 of 3 pairs reliable" in told
    (line,) = [line for line in told.splitlines() if line.startswith("reliable")]
    assert "demo0.jpg" in line
    assert "demo1.jpg" in line
    shards = sorted((tmp_path / "out").rglob("*.h5"))
    before = [shard.stat().st_mtime_ns for shard in shards]
    assert main([*words, "pairs=3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == told.splitlines()[-1]
    assert [shard.stat().st_mtime_ns for shard in shards] == before
