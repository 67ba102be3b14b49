"""The order of pairs: one clock for a whole run, and balanced draws from scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from torch.utils.data import Sampler

from matcher.validation.checked import invalid

Key = tuple[int, int]
"""(epoch, index): all that a dataset needs to draw a sample."""


def spread_indices(count: int, size: int) -> list[int]:
    """`count` of `size` indices at equal distances, or all where there are no more."""
    kept = min(count, size)
    return [i * size // kept for i in range(kept)]


@dataclass(eq=False)
class PairStream(Sampler[list[Key]]):
    """Batches of keys without end, from pair `start` on.

    One clock, the pairs seen so far, says where a run stands: whoever starts at the same pair sees
    the same batches, whatever happened before and however many workers there are. Batches run over
    the ends of epochs, so that no pair is dropped.
    """

    order: Callable[[int], Sequence[int]]
    """indices of an epoch, of the same number in every epoch"""
    batch_size: int
    """pairs of this process in a batch"""
    _: KW_ONLY
    start: int = 0
    """pairs that all processes together have seen"""
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[Key]]:
        order = lru_cache(maxsize=1)(self.order)
        size, step = len(order(0)), self.batch_size * self.world
        for first in count(self.start + self.rank, step):
            numbers = range(first, first + step, self.world)
            yield [(n // size, order(n // size)[n % size]) for n in numbers]


@dataclass(frozen=True)
class SceneBalanced:
    """`per_scene` pairs of every scene, shuffled: a function of (seed, epoch) without state.

    An order for `PairStream`, which deals it to the ranks. LoFTR draws 100 pairs of
    every MegaDepth scene and 200 of every ScanNet scene an epoch.
    """

    counts: Sequence[int]
    """pairs of each scene, in the order of the dataset; empty scenes are passed over"""
    per_scene: int
    """pairs drawn of each; scenes with fewer repeat theirs, each equally often"""
    seed: int

    def __post_init__(self) -> None:
        if self.per_scene < 1:
            raise invalid("data.files.per_scene", self.per_scene, "an integer of at least 1")
        if not any(self.counts):
            some = tuple(self.counts)[:8]
            raise invalid("data.files.overlap", some, "a range that keeps some pairs")

    def __call__(self, epoch: int) -> list[int]:
        rng = np.random.default_rng((self.seed, 11, epoch))
        first, drawn = 0, []
        for pairs in self.counts:
            if pairs:
                turns = -(-self.per_scene // pairs)
                order = np.concatenate([rng.permutation(pairs) for _ in range(turns)])
                drawn.append(first + order[: self.per_scene])
            first += pairs
        return rng.permutation(np.concatenate(drawn)).tolist()
