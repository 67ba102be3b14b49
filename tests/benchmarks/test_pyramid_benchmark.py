"""The classifier with the published operator, which the benchmark times beside ours."""

from __future__ import annotations

import pytest
import torch

from benchmarks.pyramid import as_published, main
from tests.helpers.pyramids import golden_model, golden_numbers


@torch.inference_mode()
def test_the_port_gives_the_published_logits() -> None:
    x, expected = golden_numbers("b")
    logits = as_published(golden_model("b"))(x)
    assert float((logits - expected).abs().max()) < 1e-4


def test_the_benchmark_tells_both_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rounds=1", "side=64"]) == 0
    assert "quadtree_b0 at 64: ours " in capsys.readouterr().out
