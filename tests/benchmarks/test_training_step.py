"""Timing the training steps of two trees in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import training_step
from benchmarks.training_step import ROOT, Step, compare, lines_of, main, save_batch


def test_a_tree_trains_on_the_saved_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_step, "WARM_UP", 1)
    batch = tmp_path / "batch.pt"
    save_batch(batch, (64, 96), 1)
    (steps,) = compare([ROOT], batch, threads=1, rounds=2)
    assert len(steps) == 2
    assert all(step.clock > 0 and step.processor > 0.01 for step in steps)


def test_a_tree_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError")
    with pytest.raises(RuntimeError, match="ended with 1"):
        compare([tmp_path], tmp_path / "absent.pt", threads=1, rounds=1)


def test_lines_tell_medians_ratios_and_their_spread() -> None:
    ours = [Step(1.0, 1.0, 100.0), Step(2.0, 1.0, 120.0), Step(2.0, 1.0, 110.0)]
    theirs = [Step(4.0, 2.0, 200.0), Step(4.0, 1.5, 200.0), Step(2.0, 2.0, 210.0)]
    clock, processor, memory = lines_of("64x96", ours, theirs)
    assert "4.000 s [2.000, 4.000] to 2.000 s [1.000, 2.000]: 2.00 times as fast" in clock
    assert "2.00 times as fast [1.50, 2.00]" in processor
    assert "210 MB to 120 MB" in memory


@pytest.mark.parametrize("words", [[], ["HEAD", "sizes=64"], ["HEAD", "rounds=0"]])
def test_words_that_cannot_work_are_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
