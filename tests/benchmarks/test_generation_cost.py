"""Rendering must not hold up training."""

from __future__ import annotations

import re

import pytest

from benchmarks.generation import main


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pair_costs_at_most_a_quarter_of_its_training_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["repeats=5"]) == 0
    share = re.search(r"cost ([\d.]+) of a training step", capsys.readouterr().out)
    assert share is not None
    assert float(share[1]) <= 0.25


def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat=5"]) == 2
    assert "repeats" in capsys.readouterr().err
