"""The measure of retrieval, and what it says of the bundled weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.benchmarks.folder import EvalPair
from eval.retrieval import listed_neighbors, main, most_similar, nearest_cameras, recall

STRECHA = Path(__file__).resolve().parents[3] / "shared" / "eval" / "strecha"
NUMBER = {Path(f"{i}.jpg"): i for i in range(6)}


def step(a: int, b: int, places: list[float]) -> EvalPair:
    """A pair of cameras on a line."""
    T = np.eye(4)
    T[0, 3] = places[a] - places[b]
    return EvalPair(f"{a} {b}", Path(f"{a}.jpg"), Path(f"{b}.jpg"), T_0to1=T)


def test_cameras_are_chained_within_a_scene() -> None:
    places = [0.0, 5.0, 1.0, 7.0, 0.0, 1.0]
    pairs = [step(0, 1, places), step(2, 1, places), step(2, 3, places), step(4, 5, places)]
    assert nearest_cameras(pairs, NUMBER) == {
        0: [2, 1, 3], 1: [3, 2, 0], 2: [0, 1, 3], 3: [1, 2, 0], 4: [5], 5: [4],
    }  # fmt: skip


def test_listed_pairs_are_neighbors_both_ways() -> None:
    pairs = [step(0, 1, [0.0] * 6), step(0, 2, [0.0] * 6)]
    assert listed_neighbors(pairs, NUMBER) == {0: [1, 2], 1: [0], 2: [0]}


def test_recall_counts_the_neighbors_that_are_found() -> None:
    descriptors = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.1, 0.995]])
    ranked = most_similar(descriptors)
    assert ranked[0] == [1, 3, 2]
    assert recall({0: [1, 2], 2: [3]}, ranked, 1) == pytest.approx(2 / 3)
    assert recall({0: [1, 2], 2: [3]}, ranked, 3) == 1


@pytest.mark.skipif(not STRECHA.is_dir(), reason="the photographs of strecha are not here")
def test_the_bundled_weights_find_nine_of_ten_neighbors(capsys: pytest.CaptureFixture) -> None:
    assert main([f"root={STRECHA}"]) == 0
    out = capsys.readouterr().out
    assert float(out.splitlines()[1].split()[-1]) >= 0.9
