"""The plain reference of the QuadTree descent, and the CPU path that equals it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matcher.attention import cpu, quadtree, reference
from matcher.attention.quadtree import QuadTreeAttention
from matcher.attention.reference import Pyramids
from tests.helpers.descents import Descent, largest_error

CASES = 100
LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


def plain(*arguments) -> list[Tensor]:
    return [step.message for step in reference.descend(*arguments)]


def errors(case: Descent) -> tuple[float, float]:
    """Of the messages and of the gradients of the CPU path."""
    outcome, expected = case.run(cpu.descend), case.run(plain)
    return largest_error(outcome.messages, expected.messages), largest_error(
        outcome.gradients, expected.gradients
    )


@pytest.mark.parametrize("dtype", list(LIMITS))
def test_the_cpu_path_equals_the_reference_forward_and_backward(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(CASES):
        with monkeypatch.context() as patch:
            if seed % 2:
                patch.setattr(cpu, "CHUNK_BYTES", 20_000)
            found = errors(Descent.draw(seed, dtype))
        assert max(found) <= LIMITS[dtype], f"case {seed}: {found}"


@pytest.mark.parametrize("piece", [4, 100, 1000])
def test_the_size_of_the_pieces_does_not_matter(piece: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu, "CHUNK_BYTES", piece)
    for seed in range(6):
        assert max(errors(Descent.draw(1000 + seed, torch.float32))) < 1e-5


@pytest.mark.parametrize("variant", ["A", "B"])
def test_gradients_of_the_reference_are_exact(variant) -> None:
    maps = [torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    case = Descent(tuple(maps), None, None, 2, (1, 2, 2), variant)  # pyright: ignore

    def descend(*maps: Tensor) -> tuple[Tensor, ...]:
        return tuple(plain(case.pyramids(*maps), case.topks, variant))

    assert torch.autograd.gradcheck(descend, maps)


def test_the_reference_holds_four_keys_for_each_that_descends_but_at_the_coarsest_level() -> None:
    case = Descent.draw(0, torch.float32, levels=3)
    maps = tuple(torch.randn(1, 8, 64, 64) for _ in range(3))
    coarsest, middle, fine = reference.descend(case.pyramids(*maps), (5, 3, 9), "B")
    assert coarsest.scores.shape[-2:] == (256, 256)
    assert middle.scores.shape[-2:] == (1024, 4 * 5)
    assert fine.scores.shape[-2:] == (4096, 4 * 3)
    assert fine.keys.shape[-2:] == (1024, 4 * 3)


@pytest.mark.parametrize(
    ("dtype", "taken"),
    [(torch.float64, True), (torch.float32, True), (torch.bfloat16, True), (torch.float16, False)],
)
def test_the_cpu_path_supports_what_its_sums_can_hold(dtype: torch.dtype, taken: bool) -> None:
    assert cpu.supports(Descent.draw(0, dtype).pyramids()) == taken


def test_tokens_on_another_device_are_left_to_the_reference() -> None:
    pyramids = Descent.draw(0, torch.float32).pyramids()
    elsewhere = Pyramids([x.to("meta") for x in pyramids.queries], *pyramids[1:])
    assert not cpu.supports(elsewhere)


def test_half_precision_on_the_cpu_is_dispatched_to_the_reference() -> None:
    case = Descent.draw(3, torch.float16)
    arguments = case.pyramids(), case.topks, case.variant
    assert all(map(torch.equal, quadtree.descend(*arguments), plain(*arguments)))


def test_levels_are_those_that_make_the_message() -> None:
    """Variant B: each level's message is the mean of its values under its own scores."""
    case = Descent.draw(5, torch.float32, levels=2)
    query, key, value = case.maps
    attention = QuadTreeAttention(case.heads, (2, 2))
    levels = attention.levels(query, key, value)
    values = case.pyramids().values if case.key_mask is None else None
    case = Descent((query, key, value), None, None, case.heads, (2, 2), "B")
    values = case.pyramids().values
    messages = cpu.descend(case.pyramids(), (2, 2), "B")
    for level, tokens, message in zip(levels, values, messages, strict=True):
        index = level.keys.flatten(2)[..., None].expand(-1, -1, -1, tokens.shape[-1])
        chosen = tokens.gather(2, index).unflatten(2, level.keys.shape[2:])
        torch.testing.assert_close((level.scores[..., None] * chosen).sum(dim=3), message)
