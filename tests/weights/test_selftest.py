"""Weights that no longer compute what they did are told from those that do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matcher.errors import CheckpointError
from matcher.network.model import FeatureMatcher, build_matcher
from matcher.weights.__main__ import main
from matcher.weights.checkpoint import (
    Weights,
    activation_statistics,
    largest_difference,
    load_safetensors,
    read_weights,
    save_safetensors,
    selftest,
    selftest_pair,
    write_weights,
)
from matcher.weights.hub import resolve
from tests.helpers.models import COMPACT


@pytest.fixture(scope="module")
def model() -> FeatureMatcher:
    torch.manual_seed(4)
    return build_matcher(COMPACT).eval()


def test_the_second_image_is_the_first_moved_by_a_cell() -> None:
    image0, image1 = selftest_pair()
    assert torch.equal(image0[..., 8:], image1[..., :-8])
    assert image0.min() >= 0
    assert image0.max() <= 1


def test_saved_weights_pass_and_the_bundled_ones_do(model: FeatureMatcher, tmp_path: Path) -> None:
    save_safetensors(model, tmp_path / "w.safetensors")
    assert selftest(tmp_path / "w.safetensors") <= 1e-3
    assert selftest(resolve("compact", offline=True)) <= 1e-3


@pytest.mark.parametrize("name", ["backbone.stem.weight", "transformer.blocks.1.query.weight"])
def test_swapped_numbers_of_the_right_shape_are_noticed(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In trained weights: without training every key gets about the same attention."""
    path = tmp_path / "w.safetensors"
    weights = read_weights(resolve("compact", offline=True))
    write_weights(
        path, Weights({**weights.tensors, name: weights.tensors[name].flip(0)}, weights.metadata)
    )
    load_safetensors(path)
    with pytest.raises(CheckpointError, match=r"E509 .*w\.safetensors: its results differ by"):
        selftest(path)
    assert main(["selftest", str(path)]) == 5
    assert "E509" in capsys.readouterr().err


@pytest.mark.parametrize("stored", [None, "[1, 2]", "{", "[[]]", "null"])
def test_missing_or_damaged_statistics_are_an_error(
    model: FeatureMatcher, tmp_path: Path, stored: str | None
) -> None:
    path = tmp_path / "w.safetensors"
    save_safetensors(model, path)
    weights = read_weights(path)
    metadata = {k: v for k, v in weights.metadata.items() if k != "canary"}
    metadata |= {} if stored is None else {"canary": stored}
    write_weights(path, Weights(weights.tensors, metadata))
    with pytest.raises(CheckpointError, match="E509"):
        selftest(path)


def test_statistics_are_finite_and_compare_relatively(model: FeatureMatcher) -> None:
    statistics = activation_statistics(model)
    assert len(statistics) == 10
    assert all(abs(value) < 1e6 for value in statistics)
    assert largest_difference([2.0, 0.1], [4.0, 0.1]) == 0.5
    assert largest_difference([1.0], [1.0, 2.0]) == float("inf")
