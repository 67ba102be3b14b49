"""Random problems for the paths of the QuadTree descent."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from matcher.attention.pyramid import build_pyramids
from matcher.attention.reference import Pyramids, Variant


class Outcome(NamedTuple):
    """Messages of all levels, and gradients of query, key and value."""

    messages: list[Tensor]
    gradients: list[Tensor]


@dataclass(frozen=True)
class Descent:
    """A call: maps, masks, the keys kept at each level and the variant."""

    maps: tuple[Tensor, Tensor, Tensor]
    query_mask: Tensor | None
    key_mask: Tensor | None
    heads: int
    topks: tuple[int, ...]
    variant: Variant

    @classmethod
    def draw(cls, seed: int, dtype: torch.dtype, levels: int | None = None) -> Descent:
        """A call of random sizes, 1 to 4 levels where none are given; K often exceeds the keys."""
        draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        levels = draw.randint(1, 4) if levels is None else levels
        cell, heads, batch = 2 ** (levels - 1), draw.randint(1, 3), draw.randint(1, 2)
        channels = heads * draw.choice([4, 7, 16])
        size0, size1 = ((cell * draw.randint(1, 3), cell * draw.randint(1, 3)) for _ in range(2))
        query, key, value = (
            torch.randn(batch, channels, *size, generator=generator).to(dtype)
            for size in (size0, size1, size1)
        )
        query_mask, key_mask = (
            torch.rand(batch, *size, generator=generator) < draw.choice([0.1, 0.7])
            if draw.random() < 0.5
            else None
            for size in (size0, size1)
        )
        topks = tuple(draw.choice([1, 2, 3, 6, 50]) for _ in range(levels))
        variant: Variant = "A" if draw.random() < 0.5 else "B"
        return cls((query, key, value), query_mask, key_mask, heads, topks, variant)

    def pyramids(self, *maps: Tensor) -> Pyramids:
        """The pyramids of the call, or of other maps in place of its own."""
        return build_pyramids(
            *(maps or self.maps), self.query_mask, self.key_mask, len(self.topks), self.heads
        )

    def run(self, descend) -> Outcome:
        """What `descend` makes of it, forward and backward."""
        maps = [x.clone().requires_grad_() for x in self.maps]
        messages = descend(self.pyramids(*maps), self.topks, self.variant)
        weights = [torch.linspace(-1, 1, x.numel()).view_as(x).to(x) for x in messages]
        total = sum((x * w).sum() for x, w in zip(messages, weights, strict=True))
        gradients = torch.autograd.grad(total, maps)
        return Outcome([x.detach() for x in messages], list(gradients))


def largest_error(outputs: list[Tensor], expected: list[Tensor]) -> float:
    """Relative to the largest element of each expected tensor where that exceeds 1."""
    pairs = zip(outputs, expected, strict=True)
    return max(float((x - y).abs().max() / y.abs().max().clamp(min=1)) for x, y in pairs)
