"""The quality head: its measures by hand, its file, and a fit to rendered pairs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval import quality
from eval.benchmarks.folder import read_pairs_with_gt
from eval.quality import (
    Bin,
    Sample,
    calibration_error,
    draw_reliability,
    fit,
    reliability,
    roc_area,
    sample_photographs,
)
from matcher import load_matcher
from matcher.errors import CheckpointError
from matcher.network.quality import FIGURES, QualityHead
from matcher.weights.checkpoint import load_quality, quality_path, save_quality
from matcher.weights.hub import resolve
from tests.helpers.shifted_images import fourier_shift, quantized, texture


def test_calibration_and_roc_by_hand() -> None:
    told = np.array([0.1, 0.1, 0.9, 0.9])
    right = np.array([False, True, True, True])
    bins = reliability(told, right)
    assert [(b.found, b.share) for b in bins] == [(0.5, 0.5), (1.0, 0.5)]
    assert calibration_error(bins) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert roc_area(told, right) == pytest.approx((0.5 + 1 + 1) / 3)
    assert roc_area(-told, right) == pytest.approx((0.5 + 0 + 0) / 3)
    assert np.isnan(roc_area(told, np.ones(4, bool)))


def test_a_fit_is_calibrated_and_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "STEPS", 300)
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


def test_photographs_are_judged_by_their_epipolar_lines(tmp_path: Path) -> None:
    image = texture(6, (128, 160), cutoff=0.2)
    (tmp_path / "images").mkdir()
    for name, view in (("a.png", image), ("b.png", fourier_shift(image, (8, 0)))):
        Image.fromarray(quantized(view, 8).mul(255).byte().numpy()).save(tmp_path / "images" / name)
    K = "100 0 79.5 0 100 63.5 0 0 1"
    lines = [
        f"a.png b.png 0 0 {K} {K} 1 0 0 {x} 0 1 0 {y} 0 0 1 0 0 0 0 1" for x, y in ((1, 0), (0, 1))
    ]
    predictor = load_matcher("compact", refine="none", device="cpu", offline=True)
    shares = []
    for line in lines:
        (tmp_path / "pairs_with_gt.txt").write_text(f"{line}\n")
        found = sample_photographs(predictor, read_pairs_with_gt(tmp_path), 3)
        assert found.figures.shape == (len(found.right), len(FIGURES))
        shares.append(float(found.right.float().mean()))
    assert shares[0] > 0.95
    assert shares[1] < 0.05


def test_photographs_that_are_not_there_are_told_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "sample", None)
    head = tmp_path / "head.safetensors"
    assert quality.main(["compact", f"output={head}", f"real={tmp_path}"]) == 2
    assert "pairs_with_gt.txt" in capsys.readouterr().err


def test_a_head_is_kept_whatever_becomes_of_its_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    matches = torch.rand(50, len(FIGURES), generator=generator)
    fitted = iter([Sample(matches, matches[:, 0] > 0.5, matches[:, 1])])
    monkeypatch.setattr(quality, "sample", lambda *_: next(fitted))
    monkeypatch.setattr(quality, "STEPS", 2)
    monkeypatch.setattr(quality.Options, "scenes", lambda *_: None)
    with pytest.raises(StopIteration):
        quality.main(["compact", f"output={tmp_path / 'head.safetensors'}"])
    assert (tmp_path / "head.safetensors").is_file()
    for word in ("figure=a.pdf", "output=photograph.jpg"):
        assert quality.main(["compact", word]) == 2
        assert f"E201 {word.partition('=')[0]}: " in capsys.readouterr().err


def test_the_reliability_diagram_is_a_picture(tmp_path: Path) -> None:
    draw_reliability(tmp_path / "a.png", {"one": [Bin(0.2, 0.1, 0.5), Bin(0.9, 1.0, 0.5)]})
    assert np.ptp(np.asarray(Image.open(tmp_path / "a.png").convert("L"))) > 200


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
