"""Selection of the largest scores: the same as by comparing floats."""

from __future__ import annotations

import pytest
import torch

from matcher.attention.cpu import largest, largest_positive


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("size", "count"), [(1, 1), (7, 7), (80, 28), (640, 20), (644, 20), (642, 20)]
)
def test_the_largest_are_found(size: int, count: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(size)
    scores = torch.randn(5, 3, size, generator=g, dtype=dtype)
    scores[0, 0, : size // 2] = -torch.inf
    scores[1, 1] = scores[1, 1].round()  # Ties, and zeros of both signs.
    found = largest(scores, count)
    assert found.shape == (5, 3, count)
    values = scores.gather(-1, found).sort(dim=-1, descending=True).values
    assert torch.equal(values, scores.topk(count, dim=-1).values)
    assert all(len(row.unique()) == count for row in found.flatten(0, 1))


def test_all_equal_scores_give_distinct_indices() -> None:
    assert len(largest(torch.zeros(640), 20).unique()) == 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_probabilities_are_found(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(1)
    probabilities = torch.randn(7, 80, generator=g, dtype=dtype).mul(40).softmax(dim=-1)
    probabilities[0, 20:] = 0.0
    found = largest_positive(probabilities, 28)
    values = probabilities.gather(-1, found).sort(dim=-1, descending=True).values
    assert torch.equal(values, probabilities.topk(28, dim=-1).values)
    assert len(found[0].unique()) == 28
