"""The operators that the attention benchmark compares."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.attention import calls, levels_for, published

GOLDEN = Path(__file__).parents[1] / "golden" / "quadtree_operators.npz"


def test_the_port_equals_the_published_operator() -> None:
    golden = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN).items()}
    message = published(
        golden["query"],
        golden["key"],
        golden["value"],
        golden["B.weight"],
        heads=int(golden["num_heads"]),
        topks=golden["topks"].tolist(),
    )
    expected = golden["B.message"].flatten(2).transpose(1, 2).reshape(message.shape)
    assert (message - expected).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("size", "levels"), [((60, 80), 3), ((128, 128), 3), ((160, 160), 4), ((256, 256), 4)]
)
def test_levels_leave_a_small_coarsest_grid(size: tuple[int, int], levels: int) -> None:
    assert levels_for(size) == levels


@pytest.mark.parametrize("training", [False, True])
def test_every_method_can_be_called(training: bool) -> None:
    for call in calls((16, 16), torch.float32, training).values():
        call()
