"""The table of the detector's backbone beside PVT's reduction."""

from __future__ import annotations

import pytest
import torch

from benchmarks.detection import ROWS, Costs, main, table
from eval.attention_kinds.costs import multiply_adds
from matcher.network.pyramid import Pyramid


def test_counts_without_numbers_are_those_of_a_real_pass() -> None:
    config = ROWS["quadtree_b0_dense"]
    with torch.device("meta"):
        empty = Pyramid(config).eval()
    real = Pyramid(config).eval()
    counts = multiply_adds(empty.features, (64, 96), "meta"), multiply_adds(real.features, (64, 96))
    assert counts[0] == counts[1] > 1e6


def test_the_rows_differ_in_attention_alone() -> None:
    tree, pvt, control = ROWS.values()
    assert (tree.dims, tree.depths, tree.heads) == (pvt.dims, pvt.depths, pvt.heads)
    assert (tree.attention, pvt.attention, control.attention) == ("quadtree", "pvt", "pvt")
    assert (tree.lepe, pvt.lepe, control.lepe) == (True, False, True)


def test_a_line_tells_the_costs_of_a_row() -> None:
    lines = table({"pvt": Costs(3_409_760, 26_600_000_000, 177_500_000_000, 1.5, 1234.0)})
    assert lines.splitlines()[-1] == "| `pvt` | 3,410 | 26.6 | 177.5 | 1.50 | 1,234 |"


@pytest.mark.slow
def test_the_benchmark_runs_on_a_small_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rounds=1", "height=64", "width=96"]) == 0
    assert capsys.readouterr().out.count("\n") == 2 + len(ROWS)
