"""The order of an epoch that gives every scene the same number of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from matcher.config import invalid, require_positive


class SceneBalanced:
    """`per_scene` pairs of every scene, shuffled: a function of (seed, epoch) without state.

    An order for `data.stream.PairStream`, which deals it to the ranks. LoFTR draws 100 pairs of
    every MegaDepth scene and 200 of every ScanNet scene an epoch.

    Args:
        counts: pairs of each scene, in the order of the dataset; empty scenes are passed over.
        per_scene: pairs drawn of each; scenes with fewer repeat theirs, each equally often.
        seed: of the run.
    """

    def __init__(self, counts: Sequence[int], per_scene: int, seed: int) -> None:
        require_positive("data.files.per_scene", per_scene)
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
