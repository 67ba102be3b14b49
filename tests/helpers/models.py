"""Tiny models and images for tests."""

from __future__ import annotations

import numpy as np
import torch

from matcher import FeatureMatcher, build_matcher
from matcher.config import (
    BackboneConfig,
    CoarseConfig,
    FineConfig,
    MatcherConfig,
    PositionConfig,
    TransformerConfig,
)

COMPACT = MatcherConfig(
    backbone=BackboneConfig(
        initial_dim=32, block_dims=(32, 64, 128), depths=(1, 2, 3), pyramid="lean"
    ),
    position=PositionConfig(shift=64),
    transformer=TransformerConfig(
        layers=("self", "cross") * 2, heads=4, topks=(20, 28, 8), mlp_ratio=2
    ),
    coarse=CoarseConfig(routing="auto"),
    fine=FineConfig(window=7, layers=(), heads=4, normalize=True, local=1),
)
"""The bundled model, small enough for a laptop CPU."""
PUBLISHED_TINY = MatcherConfig(
    backbone=BackboneConfig(initial_dim=8, block_dims=(8, 12, 16), depths=(1, 1, 1)),
    transformer=TransformerConfig(layers=("self", "cross"), heads=2, topks=(4, 4, 4)),
    coarse=CoarseConfig(threshold=0.0, border=0),
    fine=FineConfig(heads=2),
)
"""Layers of the published model, few and narrow."""
COMPACT_TINY = MatcherConfig(
    backbone=BackboneConfig(
        initial_dim=8, block_dims=(8, 16, 32), depths=(1, 1, 1), pyramid="lean"
    ),
    transformer=TransformerConfig(layers=("self", "cross"), heads=2, topks=(4, 4, 4), mlp_ratio=1),
    coarse=CoarseConfig(border=0, threshold=0.0),
    fine=FineConfig(window=5, layers=(), heads=2),
)
"""Layers of the bundled model, few and narrow."""


def tiny_model() -> FeatureMatcher:
    """A compact model with random weights, always the same."""
    torch.manual_seed(0)
    return build_matcher(COMPACT_TINY)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width), dtype=np.float32)
