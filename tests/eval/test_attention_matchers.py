"""Matchers that differ in attention: what is equal for all, intervals, and resuming."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from PIL import Image

from conf import compose
from eval.attention_kinds import matchers
from eval.attention_kinds.matchers import (
    ROWS,
    MatchersOptions,
    auc,
    files_of,
    interval,
    main,
    table,
)
from eval.training import content_of_files
from matcher.errors import UsageError
from matcher.training.config import RunConfig
from matcher.validation.checked import config_from_dict
from matcher.weights.checkpoint import load_safetensors


def test_rows_differ_in_attention_and_its_supervision_alone() -> None:
    runs = {}
    for name, words in ROWS.items():
        values = compose("train", ["experiment=ablation", *words])
        values.pop("data")
        runs[name] = config_from_dict(RunConfig, values)
    base = runs["quadtree_b"]
    kinds = {
        n: (r.model.transformer.attention, r.model.transformer.variant) for n, r in runs.items()
    }
    assert kinds["quadtree_a"] == ("quadtree", "A")
    assert [kinds[n][0] for n in ("full", "linear", "pvt")] == ["full", "linear", "pvt"]
    assert all(run.optim == base.optim and run.seed == base.seed for run in runs.values())
    assert all(run.model.backbone == base.model.backbone for run in runs.values())
    assert base.loss.level_weight > 0
    assert runs["quadtree_b_alone"].loss.level_weight == 0


def test_a_difference_is_over_the_same_pairs() -> None:
    base = [0.5, 3.0, 9.0, inf, 1.0, 20.0, 4.0, 2.0]
    better = [error - 0.4 for error in base]
    low, high = interval(base)
    assert low < auc(base) < high
    low, high = interval(better, base)
    assert 0 < low <= high < 4.1


def test_the_table_has_columns_for_every_benchmark() -> None:
    rows = {
        "quadtree_b": {"rendered": [0.0, inf], "strecha": [0.0, 0.0]},
        "full": {"rendered": [0.0, 0.0], "strecha": [0.0, 0.0]},
    }
    lines = table(rows).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][1::2] == ["rendered AUC@10 (95%)", "strecha AUC@10 (95%)"]
    assert cells[2][2] == "-"
    assert cells[3][1].startswith("100.0 (")
    assert cells[3][4] == "+0.0 (+0.0 to +0.0)"


def test_a_row_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"output={tmp_path}", "pairs=8", "rendered=2", "rows=[pvt]"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert (tmp_path / "matchers.md").read_text() == text
    model = load_safetensors(tmp_path / "pvt" / "weights.safetensors")
    assert model.config.transformer.attention == "pvt"

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(matchers, "train_on", refuse)
    assert main(words) == 0
    assert capsys.readouterr().out == text
    assert main([*words[:2], "rendered=3", "rows=[pvt]"]) == 2
    assert "E206" in capsys.readouterr().err
    assert main([*words[:2], "rows=[]"]) == 2
    assert "E201 rows" in capsys.readouterr().err


def test_photographs_and_real_pairs_belong_to_a_row(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / "images" / name)
    numbers = "9 0 4 0 9 4 0 0 1 " * 2 + "1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1"
    (tmp_path / "pairs_with_gt.txt").write_text(f"a.png b.png 0 0 {numbers}\n")
    options = MatchersOptions(photos=str(tmp_path / "images"), real=str(tmp_path))
    before = content_of_files(files_of(options))
    assert content_of_files(files_of(options)) == before
    Image.new("L", (8, 8), 1).save(tmp_path / "images" / "b.png")
    assert content_of_files(files_of(options)) != before
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(UsageError, match="E111"):
        content_of_files(files_of(options))
