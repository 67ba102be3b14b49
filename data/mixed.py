"""Rendered and real pairs in one run: whole batches of either, in a fixed rhythm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from data.order import Key, PairStream
from matcher.structures import ImagePair

MixedKey = tuple[bool, Key]
"""(whether the pair is a real one, its key in that source)."""


@dataclass(eq=False)
class MixedStream(Sampler[list[MixedKey]]):
    """Batches of rendered pairs, a share of which give way to batches of real ones.

    As with `PairStream`, the pairs seen so far say which batch is next.
    """

    rendered: PairStream
    """as it would be if no batch were real"""
    real: Callable[[int], Sequence[int]]
    """indices of an epoch of real pairs"""
    share: float
    """of the batches that are real"""

    def __iter__(self) -> Iterator[list[MixedKey]]:
        step = self.rendered.batch_size * self.rendered.world
        begun = self.rendered.start // step
        reals = int(begun * self.share)
        rendered = iter(replace(self.rendered, start=(begun - reals) * step))
        real = iter(replace(self.rendered, order=self.real, start=reals * step))
        for batch in count(begun):
            is_real = int((batch + 1) * self.share) > int(batch * self.share)
            yield [(is_real, key) for key in next(real if is_real else rendered)]


@dataclass(eq=False)
class Mixed(Dataset[Any]):
    """Two datasets behind the keys of a `MixedStream`."""

    rendered: Any
    real: Any

    def __getitem__(self, key: MixedKey) -> Any:
        is_real, inner = key
        return (self.real if is_real else self.rendered)[inner]

    def __len__(self) -> int:
        return len(self.rendered) + len(self.real)


@dataclass(eq=False)
class CoarseOnly(Dataset[ImagePair]):
    """Pairs whose depth tells cells apart but no fractions of pixels."""

    pairs: Any

    def __getitem__(self, key: Any) -> ImagePair:
        pair = self.pairs[key]
        known = torch.zeros(pair.image0.shape[0], dtype=torch.bool)
        return replace(pair, geometry=replace(pair.geometry, fine=known))

    def __len__(self) -> int:
        return len(self.pairs)
