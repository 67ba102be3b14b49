"""Where the figures of an evaluation go is looked at before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eval import classification, detection, quality, stereo

PROGRAMS = [classification.main, detection.main, stereo.main]
"""Each takes ``weights=`` and ``output=``."""


def words(program: Callable[..., int], weights: Path, output: Path) -> list[str]:
    data = [] if program is stereo.main else ["folder=nowhere"]
    return [*data, f"weights={weights}", f"output={output}"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_output_that_cannot_be_written_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], program: Callable[..., int]
) -> None:
    (tmp_path / "file").touch()
    assert program(words(program, tmp_path / "none", tmp_path / "file" / "out.json")) == 4
    told = capsys.readouterr()
    assert told.err.startswith("E401 ")
    assert told.out == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_figures_do_not_replace_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], program: Callable[..., int]
) -> None:
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(b"weights")
    assert program(words(program, weights, weights)) == 2
    assert capsys.readouterr().err.startswith("E201 output: ")  # Figures are JSON, weights are not.
    assert weights.read_bytes() == b"weights"


def test_a_figure_of_quality_does_not_replace_its_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = tmp_path / "head.safetensors"
    assert quality.main(["compact", f"output={head}", f"figure={head}"]) == 2
    assert capsys.readouterr().err.startswith("E201 figure: ")  # Figures are pictures.
    assert not head.exists()
