"""The quality head: its measures by hand, its file, and a fit to rendered pairs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.quality import Sample, calibration_error, fit, reliability, roc_area
from matcher.errors import CheckpointError
from matcher.network.quality import FIGURES, QualityHead
from matcher.weights.hub import resolve
from matcher.weights.quality_file import load_quality, quality_path, save_quality


def test_calibration_and_roc_by_hand() -> None:
    told = np.array([0.1, 0.1, 0.9, 0.9])
    right = np.array([False, True, True, True])
    bins = reliability(told, right)
    assert [(b.found, b.share) for b in bins] == [(0.5, 0.5), (1.0, 0.5)]
    assert calibration_error(bins) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert roc_area(told, right) == pytest.approx((0.5 + 1 + 1) / 3)
    assert roc_area(-told, right) == pytest.approx((0.5 + 0 + 0) / 3)
    assert np.isnan(roc_area(told, np.ones(4, bool)))


def test_a_fit_is_calibrated_and_the_same_every_time() -> None:
    generator = torch.Generator().manual_seed(3)
    figures = torch.randn(6000, len(FIGURES), generator=generator) * 3 + 1
    chance = (figures[:, 0] - figures[:, 1]).sigmoid()
    right = torch.rand(6000, generator=generator) < chance
    data = Sample(figures[:4000], right[:4000], chance[:4000])
    first, again = fit(data), fit(data)
    probability = first(figures[4000:]).detach()
    assert torch.equal(probability, again(figures[4000:]).detach())
    assert (probability - chance[4000:]).abs().mean() < 0.06
    bins = reliability(probability.double().numpy(), right[4000:].numpy())
    assert calibration_error(bins) < 0.05


def test_a_head_is_found_beside_its_own_weights_alone(tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    shutil.copy(resolve("compact", offline=True), weights)
    assert load_quality(weights) is None
    torch.manual_seed(0)
    head = QualityHead()
    save_quality(head, quality_path(weights), weights)
    found = load_quality(weights)
    assert found is not None
    figures = torch.randn(5, len(FIGURES))
    assert torch.equal(found(figures), head(figures).detach())
    with weights.open("ab") as file:
        file.write(b" ")
    assert load_quality(weights) is None
    save_quality(head, quality_path(weights), weights)
    quality_path(weights).write_bytes(quality_path(weights).read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="E501"):
        load_quality(weights)


def test_the_bundled_weights_have_a_head() -> None:
    assert load_quality(resolve("compact", offline=True)) is not None
