"""QuadTree attention against the authors' implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from matcher.attention.quadtree import QuadTreeAttention
from matcher.network.pyramid.attention import TreeMessages
from matcher.network.pyramid.config import PyramidConfig

FILE = Path(__file__).parents[1] / "golden" / "quadtree_operators.npz"
GOLDEN = {name: torch.from_numpy(np.asarray(values)) for name, values in np.load(FILE).items()}
MAPS = [GOLDEN[name] for name in ("query", "key", "value")]
CHANNELS, HEADS, TOPKS = MAPS[0].shape[1], int(GOLDEN["num_heads"]), GOLDEN["topks"].tolist()


def expected(name: str) -> torch.Tensor:
    return GOLDEN[f"{name}.message"].flatten(2).transpose(1, 2).reshape(MAPS[0].shape)


@pytest.mark.parametrize("variant", ["A", "B"])
def test_message_equals_the_published_operator(variant: str) -> None:
    attention = QuadTreeAttention(HEADS, TOPKS, variant)
    if attention.level_weights is not None:
        attention.level_weights.data = GOLDEN[f"{variant}.weight"]
    assert (attention(*MAPS) - expected(variant)).abs().max() <= 1e-5


def test_message_with_local_encoding_equals_the_published_operator() -> None:
    attention = TreeMessages(CHANNELS, HEADS, len(TOPKS), PyramidConfig())
    attention.topks = tuple(TOPKS)
    prefix = "B_lepe."
    state = {n.removeprefix(prefix): v for n, v in GOLDEN.items() if n.startswith(prefix)}
    del state["message"]
    attention.load_state_dict(state)
    query, key, value = MAPS
    values = [F.avg_pool2d(value, 4), F.avg_pool2d(value, 2), value]
    message = attention(query, key, values, [None] * 3)
    assert (message - expected("B_lepe")).abs().max() <= 1e-5
