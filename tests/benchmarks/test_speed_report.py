"""The benchmark of speed: growth, merging of parts, the page, and a miniature run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.pair_methods import needed_bytes
from benchmarks.report import growth, ratios, write_report
from benchmarks.worker import threshold_of


def row(method: str, size: tuple[int, int], seconds: float, run: str = "a") -> dict:
    return {
        "part": "pair", "method": method, "size": list(size), "dtype": "float32",
        "training": False, "device": "cpu", "tokens": size[0] * size[1] // 64,
        "seconds": seconds, "least": seconds, "most": seconds, "repeats": 1,
        "peak_megabytes": 100.0, "flops": 2_000_000_000, "matches": 7, "run": run,
        "conditions": "2 threads on a fast one",
    }  # fmt: skip


def test_growth_is_the_exponent_of_a_power_law() -> None:
    assert growth([10, 100, 1000], [0.3 * t**1.5 for t in (10, 100, 1000)]) == pytest.approx(1.5)
    assert growth([10, 10], [1, 2]) is None


def test_the_threshold_leaves_as_many_matches_as_wanted() -> None:
    scores = [0.5, 0.1, 0.9, 0.3]
    assert sum(score > threshold_of(scores, 2) for score in scores) == 2
    assert threshold_of(scores, 4) == 0


def test_ratios_are_of_one_run_only() -> None:
    slow, fast = row("kornia LoFTR", (480, 640), 6.0), row("compact", (480, 640), 0.5)
    assert "| kornia LoFTR / compact | 12.00 | >= 12 |" in ratios([slow, fast])
    assert ratios([slow, {**fast, "run": "b"}]) == ""


def test_the_page_has_a_line_for_each_row_and_a_small_figure(tmp_path: Path) -> None:
    rows = [row("compact", (480, 640), 0.5), row("compact", (960, 1280), 4.0)]
    write_report(rows, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "Measured with 2 threads on a fast one." in page
    assert "| compact | 480x640 | 4800 | 0.5 [0.5, 0.5] | 100 | 2 | 7 |  |" in page
    assert "| compact | 960x1280 | 19200 | 4 [4, 4] | 100 | 2 | 7 | 1.50 |" in page
    assert 0 < (tmp_path / "images" / "performance.png").stat().st_size < 150_000


def test_quadratic_peers_state_their_memory() -> None:
    assert needed_bytes("kornia LoFTR", (2048, 2048)) > 16e9
    assert needed_bytes("compact", (2048, 2048)) == 0


def test_a_miniature_run_measures_and_merges(tmp_path: Path) -> None:
    output = tmp_path / "rows.json"
    output.write_text(json.dumps([row("kornia LoFTR", (64, 96), 1.0, "old")]))
    words = ["--parts", "pair", "--sizes", "64x96", "--methods", "compact", "--repeats", "2"]
    assert main([*words, "--dtypes", "float32", "--threads", "1", "--output", str(output)]) == 0
    old, new = json.loads(output.read_text())
    assert (old["method"], old["run"]) == ("kornia LoFTR", "old")
    assert (new["method"], new["tokens"]) == ("compact", 96)
    assert 0 < new["least"] <= new["seconds"] <= new["most"]
    assert new["flops"] > 1e8
    assert new["peak_megabytes"] > 100
