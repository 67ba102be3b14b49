"""The comparison of attention kinds: what is counted, what is equal for all, and resuming."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval.attention_kinds import accuracy
from eval.attention_kinds.__main__ import main
from eval.attention_kinds.accuracy import Recipe, interval_of_difference, train_row
from eval.attention_kinds.costs import Costs, multiply_adds
from eval.attention_kinds.mass import Mass, StageInput, mass_reached, queries_and_keys
from eval.attention_kinds.report import figure, pooled, table
from eval.attention_kinds.rows import ROWS, build_row, keys_of_a_query
from matcher.attention import reference
from matcher.errors import UsageError
from matcher.weights.pyramid import load_pyramid
from tests.helpers.image_classes import COLORS, write_classes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for part in ("train", "val"):
        write_classes(root / part, each=2)
    return root


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("linear", 1024),
        ("full", 1024),
        ("pvt", 16),
        ("swin", 64),
        ("focal", 64 + 24),
        ("quadtree_a", 16 + 3 * 32),
        ("quadtree_b", 16 + 3 * 32),
    ],
)
def test_keys_of_a_query_are_those_it_scores(name: str, keys: int) -> None:
    assert keys_of_a_query(ROWS[name], 32) == keys


def test_keys_of_the_quadtree_are_those_of_its_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_row(ROWS["quadtree_b"], 0)
    attention = model.get_submodule("block1.0.attn.py_att")
    seen = []

    def counted(pyramids: reference.Pyramids, *arguments: object) -> list[torch.Tensor]:
        steps = reference.descend(pyramids, (8,) * 4, "B")
        seen.append(sum(step.keys.shape[3] for step in steps))
        return [step.message for step in steps]

    monkeypatch.setattr(attention, "descend", counted)
    with torch.no_grad():
        model.features(torch.zeros(1, 3, 128, 128))
    assert seen == [keys_of_a_query(ROWS["quadtree_b"], 32)]


def test_full_attention_is_counted_in_full() -> None:
    """PyTorch's counter passes over its fused kernels."""
    counts = {
        name: multiply_adds(build_row(ROWS[name], 0).eval(), (128, 128))
        for name in ("linear", "full")
    }
    assert counts["full"] > 2 * counts["linear"]


def test_rows_start_from_the_same_weights_where_they_share_them() -> None:
    first, second = (build_row(ROWS[n], 3).state_dict() for n in ("linear", "quadtree_b"))
    shared = [n for n in first if n in second]
    assert len(shared) == len(first)
    assert all(torch.equal(first[n], second[n]) for n in shared)
    other = build_row(ROWS["linear"], 4).state_dict()
    assert not torch.equal(other["head.weight"], first["head.weight"])


def test_controls_differ_in_what_they_control() -> None:
    plain = dict(build_row(ROWS["quadtree_b_plain"], 0).named_parameters())
    assert not any("value_branchs" in n or "get_vs" in n for n in plain)
    assert any("py_att.weight" in n for n in plain)
    pvt, lepe = (dict(build_row(ROWS[n], 0).named_parameters()) for n in ("pvt", "pvt_lepe"))
    assert {n.split(".")[-2] for n in lepe.keys() - pvt.keys()} == {"lepe"}


def test_a_row_is_trained_once_and_continues_where_it_stood(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(data, 1.0, 4, 0, 0)
    found = train_row("pvt", 0, recipe, tmp_path)
    assert found.shape == (7,)
    loaded = load_pyramid(tmp_path / "pvt-0" / "final.safetensors")
    assert (loaded.labels, loaded.side) == (tuple(COLORS), 128)
    assert loaded.model.config.classes == 3

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(accuracy, "train_on", refuse)
    assert np.array_equal(train_row("pvt", 0, recipe, tmp_path), found)
    with pytest.raises(UsageError, match="E206"):
        train_row("pvt", 0, Recipe(data, 2.0, 4, 0, 0), tmp_path)
    changed = tmp_path / "set"
    shutil.copytree(data, changed)
    image = changed / "val" / "red" / "0.png"
    assert np.array_equal(train_row("pvt", 0, replace(recipe, data=changed), tmp_path), found)
    Image.open(image).transpose(Image.Transpose.ROTATE_180).save(image)
    with pytest.raises(UsageError, match="E206"):
        train_row("pvt", 0, replace(recipe, data=changed), tmp_path)


def test_differences_come_with_an_interval_over_images_and_seeds() -> None:
    rng = np.random.default_rng(0)
    base = {seed: rng.integers(0, 3, 400) for seed in (0, 1)}
    better = {seed: np.where(rng.random(400) < 0.5, 0, ranks) for seed, ranks in base.items()}
    assert interval_of_difference(base, base, 200) == (0.0, 0.0, 0.0)
    gain, low, high = interval_of_difference(better, base, 200)
    assert 0.2 < low < gain < high < 0.5
    share, worst, best = pooled({0: np.array([0, 0, 1, 2]), 1: np.array([0, 3, 0, 0])})
    assert worst < share == 0.625 < best


def test_the_table_has_a_line_a_row_and_the_figure_is_written(tmp_path: Path) -> None:
    costs = {n: Costs(16, 10**8, 10**6, 20.0, 300.0) for n in ("pvt", "quadtree_b", "full")}
    runs = {"pvt": {0: np.array([0, 1, 0, 0])}, "quadtree_b": {0: np.array([0, 0, 0, 0])}}
    lines = table(costs, runs, {"quadtree_b": Mass(0.5, 0.75)}).splitlines()
    assert lines[2].startswith("| pvt | 16 | 100 | 1,000 | 20.0 | 300 | 75.0 | ")
    assert "| -25.0 (" in lines[2]
    assert [part.strip() for part in lines[3].split("|")[-3:-1]] == ["-", "50.0 (75.0)"]
    assert [part.strip() for part in lines[4].split("|")[-4:-1]] == ["-"] * 3
    figure(tmp_path / "x.png", costs, runs)
    figure(tmp_path / "y.png", costs, {})
    assert (tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_command_writes_all_it_says(data: Path, tmp_path: Path) -> None:
    words = [f"data={data}", f"output={tmp_path}", "rows=[pvt,quadtree_b]", "epochs=1.0"]
    assert main([*words, "seeds=[0]", "rounds=1", "batch=4"]) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "costs.json", "table.md", "figure.png", "pvt-0", "quadtree_b-0",
    }  # fmt: skip
    assert set(json.loads((tmp_path / "costs.json").read_text())["costs"]) == {"pvt", "quadtree_b"}


def test_the_mass_that_is_reached_is_counted_by_cells() -> None:
    """Where all keys score alike, a window of 64 of 1024 cells holds 1/16 of full attention."""
    flat = StageInput(torch.zeros(1, 8, 32, 32), torch.zeros(1, 8, 32, 32), 2)
    assert mass_reached(ROWS["swin"], flat) == pytest.approx((1 / 16, 1 / 16))
    tree = mass_reached(ROWS["quadtree_b"], flat)
    assert tree == pytest.approx((32 / 1024, 32 / 1024))
    focal = mass_reached(ROWS["focal"], flat)
    # Of 8 x 8 windows 36 see 8 x 8 cells, the 24 at edges 6 x 8 and the 4 in corners 6 x 6.
    cells = (36 * 64 + 24 * 48 + 4 * 36) / 64
    assert focal == pytest.approx((cells / 1024, 64 / 1024))
    assert mass_reached(ROWS["pvt"], flat) is None


def test_the_tree_reaches_most_of_an_attention_that_is_somewhere() -> None:
    """One cell of the map draws all attention: the descent finds it, a window elsewhere cannot."""
    key = torch.zeros(1, 8, 32, 32)
    key[..., 21, 10] = 60.0
    stage = StageInput(torch.ones(1, 8, 32, 32), key, 2)
    tree, window = (mass_reached(ROWS[name], stage) for name in ("quadtree_b", "swin"))
    assert tree is not None
    assert window is not None
    assert tree.reached == pytest.approx(1.0, abs=1e-3)
    assert window.reached == pytest.approx(1 / 16, abs=1e-3)


def test_queries_and_keys_are_those_of_the_first_stage() -> None:
    stage = queries_and_keys(build_row(ROWS["full"], 0), torch.randn(1, 3, 128, 128))
    assert stage.query.shape == stage.key.shape == (1, 32, 32, 32)
    assert not torch.equal(stage.query, stage.key)


def test_unknown_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rows=[pvt,performer]"]) == 2
    assert "E201 rows: got 'performer'; expected one of linear, pvt" in capsys.readouterr().err
    assert main(["rows=[]"]) == 2
    assert "E201 rows: got (); expected a list of names" in capsys.readouterr().err
