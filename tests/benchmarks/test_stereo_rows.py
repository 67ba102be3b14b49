"""Cost of row attention against width: the fit, the crossing and a small run."""

from __future__ import annotations

import math

import pytest

from benchmarks.stereo_rows import crossing, exponent, main


def test_the_exponent_of_a_power_law_is_found() -> None:
    columns = (64, 240, 960)
    assert exponent(columns, [3e-6 * n**1.7 for n in columns]) == pytest.approx(1.7)


def test_the_crossing_of_two_power_laws_is_found() -> None:
    columns = (64, 240, 480, 960)
    linear, square = [100.0 * n for n in columns], [0.25 * n**2 for n in columns]
    assert crossing(columns, linear, square) == pytest.approx(400)
    assert crossing(columns, [10 * s for s in square], square) == math.inf
    assert crossing(columns, [0.5 * s for s in square], square) == 64


def test_a_small_run_tells_time_memory_and_the_crossing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "--widths 32 64 --rows 2 --turns 1 --wide 32 --training"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert "| 64 |" in out
    assert "The tree takes less time from" in out
