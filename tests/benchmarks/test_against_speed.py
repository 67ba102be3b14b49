"""Timing two trees in turns, on trees with a matcher of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.against_speed import Call, compare, growth, lines_of, main

MATCHER = """
from types import SimpleNamespace
import torch

def load_matcher(name, device, max_side):
    def match(image0, image1, threshold):
        scores = torch.linspace(0, 1, image0.size // 64)
        return SimpleNamespace(scores=scores[scores > threshold])
    return SimpleNamespace(match=match)
"""


def tree(folder: Path, matcher: str = MATCHER) -> Path:
    (folder / "matcher").mkdir(parents=True)
    (folder / "matcher" / "__init__.py").write_text(matcher)
    return folder


def test_both_trees_find_an_eighth_of_the_cells_each_time(tmp_path: Path) -> None:
    trees = tree(tmp_path / "a"), tree(tmp_path / "b")
    for calls in compare(trees, (64, 80), threads=1, repeats=2):
        assert [len(call.scores) for call in calls] == [10, 10]
        assert all(call.clock > 0 and call.peak_megabytes > 1 for call in calls)


def test_a_tree_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 1"):
        compare([tree(tmp_path / "a", "raise SystemExit(1)")], (64, 80), threads=1, repeats=1)


def test_ratios_are_of_medians() -> None:
    ours = [Call(1.0, 0.5, [0.1], 90.0), Call(1.0, 0.5, [0.1], 100.0), Call(9.0, 0.5, [0.1], 95.0)]
    theirs = [call._replace(clock=2 * call.clock, processor=2.0) for call in ours]
    clock, processor, memory = lines_of("8x8", ours, theirs)
    assert "2.000 s [2.000, 18.000] to 1.000 s [1.000, 9.000]: 2.00 times as fast" in clock
    assert processor.endswith("4.00 times as fast")
    assert "100 MB to 100 MB" in memory


def test_growth_is_the_exponent() -> None:
    assert growth([(10, 2.0), (100, 20.0), (1000, 200.0)]) == pytest.approx(1)
    assert growth([(10, 1.0), (100, 100.0)]) == pytest.approx(2)


@pytest.mark.parametrize(
    "words", [[], ["sizes=480x640"], ["HEAD", "sizes=480"], ["HEAD", "repeats=0"]]
)
def test_words_that_mean_nothing_are_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("E201 ")
