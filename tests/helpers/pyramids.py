"""Small pyramids for tests, and the published numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from matcher.network.pyramid import Pyramid, PyramidConfig
from matcher.weights.pyramid import load_published

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "pyramid"
SMALL = PyramidConfig(dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), heads=(1, 2, 3, 4),
                      mlp_ratios=(2, 2, 2, 2), topk=4, classes=5)  # fmt: skip


def golden_config(variant: Literal["a", "b"], **changes: Any) -> PyramidConfig:
    """The configuration of a published small model."""
    published = json.loads((GOLDEN / "config.json").read_text())
    config = PyramidConfig(
        dims=tuple(published["embed_dims"]),
        depths=tuple(published["depths"]),
        heads=tuple(published["num_heads"]),
        mlp_ratios=tuple(published["mlp_ratios"]),
        levels=tuple(published["sr_ratios"]),
        classes=10,
    )
    if variant == "a":
        config = replace(config, variant="A", drop_best=True)
    return replace(config, **changes)


def golden_model(variant: Literal["a", "b"], **changes: Any) -> Pyramid:
    """A published small model."""
    return load_published(GOLDEN / f"cls_{variant}_small.pth", golden_config(variant, **changes))


def golden_numbers(variant: Literal["a", "b"]) -> tuple[Tensor, Tensor]:
    """Its input (2, 3, 96, 128) and the published logits (2, 10)."""
    with np.load(GOLDEN / f"cls_{variant}_small.npz") as archive:
        return torch.from_numpy(archive["input"]).float(), torch.from_numpy(archive["output0"])
