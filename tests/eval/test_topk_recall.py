"""Top-K recall on lists that are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conf import compose
from eval.topk_recall import main
from matcher.attention.pyramid import quad_index, to_quad
from matcher.attention.quadtree import Level
from matcher.config import MatcherConfig
from matcher.network.model import build_matcher
from matcher.training.export import export_weights
from matcher.training.supervision import CoarseTargets
from matcher.training.topk_recall import recall_of, topk_recall
from matcher.validation.checked import config_from_dict
from tests.helpers.planes import plane_pair


def test_quad_index_follows_the_order_of_the_tokens() -> None:
    raster = torch.arange(4 * 8)
    tokens = to_quad(raster.view(1, 1, 4, 8).double(), 3, 1).view(-1).long()
    assert torch.equal(tokens[quad_index(raster, (4, 8), 0, 3)], raster)
    # At the coarsest of three levels the block in the top right corner is the second of two.
    assert quad_index(torch.tensor([7]), (4, 8), 2, 3).item() == 1


def test_a_match_is_recalled_when_a_head_scores_its_key() -> None:
    """2x2 cells, two levels: one query block, lists of two keys for each of two heads."""
    targets = CoarseTargets(
        torch.tensor([0, 0]), torch.tensor([0, 3]), torch.tensor([1, 2]), (2, 2), (2, 2)
    )
    fine = torch.tensor([[0, 1], [0, 2]])[None, :, None].expand(1, 2, 4, 2)
    coarse = torch.zeros(1, 2, 1, 1, dtype=torch.int64)
    levels = [Level(coarse, coarse.float()), Level(fine, fine.float())]
    top, bottom = recall_of(levels, targets)
    assert (top.union, top.per_head, top.random, top.keys) == (1, 1, 1, 1)
    # Match (0, 1): head 0 scores key 1. Match (3, 2): head 1 scores key 2.
    assert (bottom.union, bottom.per_head, bottom.random) == (1.0, 0.5, 0.5)
    assert bottom.random_union == pytest.approx(0.75)


def test_with_lists_of_all_keys_everything_is_recalled() -> None:
    values = compose("train", ["model=tiny", "model.transformer.topks=[1000,1000,1]"])["model"]
    model = build_matcher(config_from_dict(MatcherConfig, values)).eval()
    levels = topk_recall(model, plane_pair(0))
    assert [level.union for level in levels] == [1, 1, 1]
    assert levels[0].matches == 8 * 10


def exported(folder: Path, *words: str) -> str:
    """A file of a small model."""
    values = compose("train", ["model=tiny", *words])["model"]
    path = folder / "tiny.safetensors"
    export_weights(build_matcher(config_from_dict(MatcherConfig, values)), path, 0)
    return str(path)


def test_the_program_prints_a_line_a_level(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([exported(tmp_path), "pairs=1", "size=64x96"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("level")
    assert len(lines) == 4


def test_bundled_weights_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compacd"]) == 2
    assert "did you mean 'compact'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "word", ["size=480", "size=64x90", "size=0x64", "pairs=x", "pairs=0", "seed=-1"]
)
def test_words_that_mean_nothing_are_one_line(
    tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([exported(tmp_path), word]) == 2
    error = capsys.readouterr().err
    assert error.startswith("E201 ")
    assert word.partition("=")[0] in error
    assert error.count("\n") == 1


def test_weights_without_lists_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = exported(tmp_path, "model.transformer.attention=full")
    assert main([weights, "pairs=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"E201 {weights}: has full attention")
    assert error.count("\n") == 1


def test_recall_needs_quadtree_attention() -> None:
    values = compose("train", ["model=tiny", "model.transformer.attention=full"])["model"]
    model = build_matcher(config_from_dict(MatcherConfig, values)).eval()
    with pytest.raises(ValueError, match="QuadTree"):
        topk_recall(model, plane_pair(0))
