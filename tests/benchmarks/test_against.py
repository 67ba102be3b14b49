"""Comparing two trees, on trees with a matcher and a training of a few lines."""

from pathlib import Path

import pytest

from benchmarks import against

MATCHER = """
from types import SimpleNamespace
import numpy as np

def load_matcher(name, device):
    points = np.full((2, 2), {value}, np.float32)
    found = SimpleNamespace(keypoints0=points, keypoints1=points, scores=points[:, 0])
    return SimpleNamespace(match=lambda path0, path1: found)
"""
TRAINING = """
import sys
from pathlib import Path

folder = Path(next(w for w in sys.argv if w.startswith("folder="))[7:]) / "logs" / "version_0"
folder.mkdir(parents=True)
(folder / "metrics.csv").write_text("step,train/loss,lr-Adam\\n0,0.5,\\n,,0.1\\n1,{loss},\\n")
"""


def tree(folder: Path, value: float = 1.0, loss: float = 0.25) -> Path:
    (folder / "matcher").mkdir(parents=True)
    (folder / "matcher" / "__init__.py").write_text(MATCHER.format(value=value))
    (folder / "matcher" / "compact.safetensors").write_bytes(str(value).encode())
    (folder / "train.py").write_text(TRAINING.format(loss=loss))
    return folder


PAIRS = [("a.png", "b.png"), ("a.png", "c.png")]


def test_trees_that_match_alike_are_identical(tmp_path: Path, capsys: pytest.CaptureFixture):
    trees = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert against.same_weights(*trees)
    assert against.same_predictions(*trees, PAIRS, tmp_path)
    assert "identical: 2 pairs, 4 matches" in capsys.readouterr().out


def test_a_difference_of_predictions_is_told_with_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    trees = tree(tmp_path / "a", value=1.0), tree(tmp_path / "b", value=1.5)
    assert not against.same_weights(*trees)
    assert not against.same_predictions(*trees, PAIRS, tmp_path)
    out = capsys.readouterr().out
    assert "DIFFERENT: 2 of 2 pairs, 0 of them" in out
    assert "keypoints0 by up to 0.5" in out


def test_the_first_step_that_differs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    same = tree(tmp_path / "a"), tree(tmp_path / "b")
    (tmp_path / "same").mkdir()
    assert against.same_training(*same, 2, tmp_path / "same")
    other = tree(tmp_path / "c", loss=0.26)
    assert not against.same_training(same[0], other, 2, tmp_path)
    out = capsys.readouterr().out
    assert "DIFFERENT from step 2 on: train/loss 0.25 and 0.26" in out


def test_a_folder_that_is_absent_is_left_out_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert against.listed_pairs([tmp_path / "absent"], 0) == []
    assert "absent is left out" in capsys.readouterr().out


def test_a_tree_that_fails_says_why(tmp_path: Path):
    broken = tmp_path / "tree"
    (broken / "matcher").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="load_matcher"):
        against.same_predictions(tree(tmp_path / "a"), broken, PAIRS, tmp_path)


@pytest.mark.parametrize("words", [[], ["no-such-commit"], ["HEAD", "what=all of it"]])
def test_words_that_cannot_work_are_one_line(words: list[str], capsys: pytest.CaptureFixture):
    assert against.main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_commit_predicts_as_itself(capsys: pytest.CaptureFixture):
    if not (against.ROOT / against.PAIRS[1]).is_dir():
        pytest.skip("needs ../shared/eval")
    assert against.main(["HEAD", "what=predictions", f"pairs={against.PAIRS[1]}", "limit=1"]) == 0
    assert "identical: 1 pairs" in capsys.readouterr().out
