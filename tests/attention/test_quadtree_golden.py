"""QuadTree attention against the authors' implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from matcher.attention.quadtree import QuadTreeAttention

GOLDEN = Path(__file__).parents[1] / "golden" / "quadtree_operators.npz"


@pytest.mark.parametrize(
    ("name", "variant", "lepe"), [("A", "A", False), ("B", "B", False), ("B_lepe", "B", True)]
)
def test_message_equals_the_published_operator(name: str, variant: str, lepe: bool) -> None:
    golden = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN).items()}
    channels = golden["query"].shape[1]
    attention = QuadTreeAttention(
        channels, int(golden["num_heads"]), golden["topks"].tolist(), variant, lepe=lepe
    )
    if attention.level_weights is not None:
        attention.level_weights.data = golden[f"{name}.weight"]
    for level, conv in enumerate(attention.lepe or ()):
        conv.weight.data = golden[f"{name}.get_vs.{level}.weight"]
        conv.bias.data = golden[f"{name}.get_vs.{level}.bias"]
    message = attention(golden["query"], golden["key"], golden["value"])
    expected = golden[f"{name}.message"].flatten(2).transpose(1, 2).reshape(message.shape)
    assert (message - expected).abs().max() <= 1e-5
