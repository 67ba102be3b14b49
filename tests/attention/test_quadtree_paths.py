"""The fast paths of QuadTree attention equal the reference, forward and backward."""

import random

import pytest
import torch
from torch import Tensor

from matcher.attention import cpu, quadtree
from matcher.attention.quadtree import QuadTreeAttention

CASES = 100


class Case:
    """A random attention call: variant, levels, heads, top-K, grids, masks, LePE."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        draw = random.Random(seed)
        torch.manual_seed(seed)
        levels, heads = draw.randint(2, 4), draw.randint(1, 4)
        channels = heads * draw.choice([1, 4, 7, 16])
        variant = draw.choice("AB")
        cell = 2 ** (levels - 1)
        size0 = cell * draw.randint(1, 3), cell * draw.randint(1, 3)
        lepe = draw.random() < 0.3
        size1 = size0 if lepe else (cell * draw.randint(1, 3), cell * draw.randint(1, 3))
        topks = [draw.randint(1, 6) for _ in range(levels)]
        batch = draw.randint(1, 3)
        self.attention = QuadTreeAttention(channels, heads, topks, variant, lepe=lepe).to(dtype)
        if self.attention.level_weights is not None:
            torch.nn.init.normal_(self.attention.level_weights)
        self.maps = [
            torch.randn(batch, channels, *size).to(dtype) for size in (size0, size1, size1)
        ]
        self.gradient = torch.randn(batch, channels, *size0).to(dtype)
        self.key_mask = None
        if draw.random() < 0.5:
            self.key_mask = torch.rand(batch, *size1) < draw.choice([0.1, 0.7])

    def run(self) -> tuple[Tensor, list[Tensor]]:
        """The message and the gradients of query, key, value and weights."""
        inputs = [x.clone().requires_grad_() for x in self.maps]
        self.attention.zero_grad()
        message = self.attention(*inputs, None, self.key_mask)
        message.backward(self.gradient)
        weights = [p.grad for p in self.attention.parameters()]
        return message.detach(), [x.grad for x in inputs if x.grad is not None] + [
            x for x in weights if x is not None
        ]


def largest_errors(case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """Of the message, and of the gradients relative to the largest one where that exceeds 1."""
    message, gradients = case.run()
    monkeypatch.setattr(cpu, "takes", lambda query: False)
    expected, expected_gradients = case.run()
    assert len(gradients) == len(expected_gradients) >= 3
    errors = [
        float((found - true).abs().max() / true.abs().max().clamp(min=1))
        for found, true in zip(gradients, expected_gradients, strict=True)
    ]
    return float((message - expected).abs().max()), max(errors)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_the_cpu_path_equals_the_reference_on_random_shapes(
    dtype: torch.dtype, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(CASES):
        with monkeypatch.context() as patch:
            if seed % 2:
                patch.setattr(cpu, "CHUNK_BYTES", 20_000)
            errors = largest_errors(Case(seed, dtype), patch)
        assert max(errors) <= limit, f"case {seed}: {errors}"


def test_only_fp32_and_bf16_on_the_cpu_take_the_cpu_path() -> None:
    for dtype, taken in (
        (torch.float32, True),
        (torch.bfloat16, True),
        (torch.float64, False),
        (torch.float16, False),
    ):
        assert cpu.takes(torch.empty(1, dtype=dtype)) == taken
    assert not cpu.takes(torch.empty(1, device="meta"))


def test_a_recording_is_made_by_the_reference_and_changes_nothing() -> None:
    case = Case(3, torch.float32)
    record: list[quadtree.Level] = []
    with torch.no_grad():
        plain = case.attention(*case.maps, None, case.key_mask)
        recorded = case.attention(*case.maps, None, case.key_mask, record=record)
    assert len(record) == len(case.attention.topks)
    assert (plain - recorded).abs().max() <= 1e-5


@pytest.mark.parametrize("piece", [4, 100, 1000])
def test_the_size_of_the_pieces_does_not_matter(piece: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu, "CHUNK_BYTES", piece)
    for seed in range(6):
        with monkeypatch.context() as patch:
            errors = largest_errors(Case(1000 + seed, torch.float32), patch)
        assert max(errors) < 1e-5
