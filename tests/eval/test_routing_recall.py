"""Recall of routed matching: counts of what is compared."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from conf import compose
from eval.routing_recall import main, routing_recall
from matcher.config import MatcherConfig
from matcher.network import routing
from matcher.network.model import build_matcher
from matcher.training.export import export_weights
from matcher.validation.checked import config_from_dict
from tests.helpers.planes import plane_pair


def config(*words: str) -> MatcherConfig:
    values = compose("train", ["model=tiny", "model.coarse.threshold=0", *words])["model"]
    return config_from_dict(MatcherConfig, values)


def test_with_lists_of_all_blocks_everything_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("eval.routing_recall.route", partial(routing.route, blocks=99))
    recall = routing_recall(build_matcher(config()).eval(), plane_pair(0))
    assert recall.true == recall.true_compared == 8 * 10
    assert recall.exact == recall.exact_compared > 0
    assert recall.compared == recall.possible > 0


def test_with_lists_of_one_block_little_is(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("eval.routing_recall.route", partial(routing.route, blocks=1, breadth=1))
    recall = routing_recall(build_matcher(config()).eval(), plane_pair(0))
    assert recall.true_compared < recall.true
    assert recall.compared < recall.possible


def test_the_program_prints_three_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiny.safetensors"
    export_weights(build_matcher(config("model.coarse.routing=routed")), path, 0)
    assert main([str(path), "pairs=1", "size=64x96"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:14].strip() for line in lines] == ["true matches", "exact matches", "blocks"]
    assert main([str(path), "pairs=1", "size=64x90"]) == 2
    assert capsys.readouterr().err.startswith("E201 size: got '64x90'")
