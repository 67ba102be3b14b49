"""The endless, resumable order in which training sees its pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler

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
