"""The comparison of attentions along rows: what is equal for all, intervals, and resuming."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from eval import stereo_kinds
from eval.stereo import Errors
from eval.stereo_kinds import ROWS, PairFigures, bad3, counted, interval, main, table
from matcher.files import only_writer
from matcher.tasks.stereo.weights import load_stereo
from matcher.training import checkpointing

CONFUSION = [[60, 10], [10, 20]]


def figures(bad: list[int]) -> list[PairFigures]:
    """Of pairs of 100 pixels."""
    return [PairFigures(100, n, 200.0, CONFUSION) for n in bad]


def test_the_rows_differ_in_what_is_compared() -> None:
    assert (ROWS["tree"].cross, ROWS["full"].cross, ROWS["none"].layers) == ("tree", "full", 0)


def test_pixels_are_counted_by_pair() -> None:
    seen = np.array([0.0, 2.0, 3.5, 10.0], np.float32)
    errors = Errors(seen, np.zeros(4, bool), np.array(CONFUSION), np.ones(4, bool), 0.0)
    assert counted(errors) == PairFigures(4, 2, 15.5, CONFUSION)


def test_pairs_are_pooled_by_their_pixels() -> None:
    pairs = [PairFigures(100, 50, 0.0, CONFUSION), PairFigures(300, 0, 0.0, CONFUSION)]
    assert bad3({0: pairs}) == pytest.approx(12.5)
    assert bad3({0: pairs}, np.array([0, 0])) == pytest.approx(50.0)


def test_a_difference_within_pairs_is_known_better_than_each_share() -> None:
    hard = [0, 10, 20, 40, 80, 5, 60, 30]
    runs = {"tree": {0: figures(hard)}, "full": {0: figures([n + 2 for n in hard])}}
    low, high = interval(runs, "full")
    assert low < 32.6 < high
    assert high - low > 20
    assert interval(runs, "full", "tree") == pytest.approx((2.0, 2.0))


def test_the_table_has_a_line_a_row() -> None:
    runs = {"tree": {0: figures([10, 20]), 1: figures([20, 30])}, "none": {0: figures([30, 30])}}
    lines = table(runs).splitlines()
    cells = [[part.strip() for part in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[0] for row in cells] == ["tree", "none"]
    assert cells[0][2:5] == ["15.0, 25.0", "20.0 (15.0 to 25.0)", "-"]
    assert cells[1][4].startswith("+10.0 (")
    assert cells[1][5:] == ["2.00", "0.62"]
    assert int(cells[0][1]) > int(cells[1][1])


def test_rows_are_trained_once_on_equal_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"output={tmp_path}", "pairs=4", "rendered=2", "height=32", "width=64"]
    assert main([*words, "rows=[tree,none]"]) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == text
    for name in ("tree", "none"):
        folder = tmp_path / f"{name}-0"
        assert load_stereo(folder / checkpointing.WEIGHTS).config == ROWS[name]
        state = checkpointing.newest_intact(folder)
        assert state is not None
        assert checkpointing.load_checkpoint(state)["stereo"]["pairs_seen"] == 4

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(stereo_kinds, "train_on", refuse)
    assert main([*words, "rows=[tree,none]"]) == 0
    assert capsys.readouterr().out == text
    assert main([*words, "rows=[tree]", "rendered=3"]) == 2
    assert "E206" in capsys.readouterr().err
    (tmp_path / "tree-0" / "result.json").unlink()
    (tmp_path / "tree-0" / "result.json").mkdir()
    assert main([*words, "rows=[tree]"]) == 4
    assert "E402" in capsys.readouterr().err


def test_a_row_that_was_begun_goes_on_as_it_was_and_by_one_process_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"output={tmp_path}", "pairs=4", "rendered=1", "height=32", "width=64", "rows=[none]"]
    assert main(words) == 0
    folder = tmp_path / "none-0"
    (folder / "result.json").unlink()  # As where it was killed before its end.
    assert main([*words, "height=64"]) == 2
    assert "E206" in capsys.readouterr().err
    with only_writer(folder, "wait"):
        assert main(words) == 2
    assert "E207" in capsys.readouterr().err
    for checkpoint in checkpointing.checkpoints(folder):
        checkpoint.write_bytes(b"cut off")
    before = (folder / checkpointing.WEIGHTS).read_bytes()
    assert main(words) == 4
    assert "none of its 1 checkpoints is intact" in capsys.readouterr().err
    assert (folder / checkpointing.WEIGHTS).read_bytes() == before


def test_an_interruption_tells_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise InterruptedError(signal.SIGTERM, "stopped after step 3; resume=auto goes on")

    monkeypatch.setattr("eval.training.fit_module", stop)
    words = [f"output={tmp_path}", "pairs=4", "height=32", "width=64", "rows=[none]"]
    assert main(words) == 143
    assert capsys.readouterr().err == "stopped; the same words go on\n"


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rows=[tree,ring]"]) == 2
    assert "E201 rows: got 'ring'; expected one of tree, full, none" in capsys.readouterr().err
    assert main(["rows=[]"]) == 2
    assert "E201 rows" in capsys.readouterr().err
