"""The order of pairs: one clock for a whole run, and balanced draws from scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from matcher.validation.checked import invalid

Key = tuple[int, int]
"""(epoch, index): all that a dataset needs to draw a sample."""


class PairStream(Sampler[list[Key]]):
    """Batches of keys without end, from pair `start` on.

    One clock, the pairs seen so far, says where a run stands: whoever starts at the same pair sees
    the same batches, whatever happened before and however many workers there are. Batches run over
    the ends of epochs, so that no pair is dropped.

    Args:
        order: indices of an epoch, of the same number in every epoch.
        batch_size: pairs of this process in a batch.
        start: pairs that all processes together have seen.
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self,
        order: Callable[[int], Sequence[int]],
        batch_size: int,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.order = order
        self.batch_size = batch_size
        self.start = start
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[list[Key]]:
        size = len(self.order(0))
        epoch, indices = -1, self.order(0)
        first = self.start + self.rank
        while True:
            keys = []
            for n in range(first, first + self.batch_size * self.world, self.world):
                if n // size != epoch:
                    epoch = n // size
                    indices = self.order(epoch)
                keys.append((epoch, indices[n % size]))
            yield keys
            first += self.batch_size * self.world


class SceneBalanced:
    """`per_scene` pairs of every scene, shuffled: a function of (seed, epoch) without state.

    An order for `PairStream`, which deals it to the ranks. LoFTR draws 100 pairs of
    every MegaDepth scene and 200 of every ScanNet scene an epoch.

    Args:
        counts: pairs of each scene, in the order of the dataset; empty scenes are passed over.
        per_scene: pairs drawn of each; scenes with fewer repeat theirs, each equally often.
        seed: of the run.
    """

    def __init__(self, counts: Sequence[int], per_scene: int, seed: int) -> None:
        if per_scene < 1:
            raise invalid("data.files.per_scene", per_scene, "an integer of at least 1")
        if not any(counts):
            raise invalid("data.files.overlap", tuple(counts)[:8], "a range that keeps some pairs")
        self.counts = tuple(counts)
        self.per_scene = per_scene
        self.seed = seed

    def __call__(self, epoch: int) -> list[int]:
        rng = np.random.default_rng((self.seed, 11, epoch))
        first, drawn = 0, []
        for count in self.counts:
            if count:
                turns = -(-self.per_scene // count)
                order = np.concatenate([rng.permutation(count) for _ in range(turns)])
                drawn.append(first + order[: self.per_scene])
            first += count
        return rng.permutation(np.concatenate(drawn)).tolist()
