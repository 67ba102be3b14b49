"""Matching shard after shard on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from matcher.batch.feature_cache import ImageFeatures
from matcher.batch.options import CollectionOptions
from matcher.batch.run import Run
from matcher.batch.shards import DUPLICATE, NO_MATCH, Shard
from matcher.errors import Code, ImageError, UsageError
from matcher.images.preprocess import PreparedPair
from matcher.predictor import Predictor, load_matcher
from matcher.runtime import in_halves, warm_allocator
from matcher.structures import Matches

Task = tuple[np.ndarray, np.ndarray]
"""(n, 2) images of the pairs of a shard and (n,) bool of the duplicates among them."""
Numbered = tuple[Sequence[int], PreparedPair]
"""The numbers of two images and the images."""


class ShardMatcher:
    """Matches the pairs of a shard with a model.

    Batches form inside the shard alone, of pairs of the same size, so that a shard that is done
    again comes out the same. A batch that does not fit into memory is matched in halves; a pair
    that does not fit alone fails with E131.
    """

    def __init__(self, predictor: Predictor, features: ImageFeatures, batch_size: int) -> None:
        self.predictor = predictor
        self.features = features
        self.batch_size = batch_size

    @torch.inference_mode()
    def match(self, task: Task, upcoming: Task | None = None) -> Shard:
        """The results of a shard; the images of `upcoming` are read meanwhile."""
        pairs, duplicate = task
        results: list[Matches | int] = [DUPLICATE] * len(pairs)
        able: dict[int, PreparedPair] = {}
        self.features.read_ahead(_images(task))
        for i in np.flatnonzero(~duplicate).tolist():
            ready = self._read(pairs[i].tolist())
            if isinstance(ready, int):
                results[i] = ready
            else:
                able[i] = ready
        if upcoming is not None:
            self.features.read_ahead(_images(upcoming))
        for batch in batches(able, self.batch_size):
            numbered = [(pairs[i].tolist(), able[i]) for i in batch]
            matched = in_halves(
                self._match, numbered, lambda _: Code.OUT_OF_MEMORY, self.features.clear
            )
            for i, result in zip(batch, matched, strict=True):
                results[i] = result
        self.features.forget_reads(but=() if upcoming is None else _images(upcoming))
        return Shard.of(results)

    def _read(self, images: Sequence[int]) -> PreparedPair | int:
        """Both images, or the status of a pair that cannot be matched."""
        try:
            pair = PreparedPair(*(self.features.input(image) for image in images))
        except (ImageError, UsageError) as error:
            return error.code
        except MemoryError:
            return Code.OUT_OF_MEMORY
        return NO_MATCH if pair.reason else pair

    def _match(self, batch: Sequence[Numbered]) -> Sequence[Matches | int]:
        pairs = [pair for _, pair in batch]
        maps0, maps1 = (
            [self.features.features(images[side]) for images, _ in batch] for side in (0, 1)
        )
        if self.predictor.options.rotate != "off":
            # To be turned, an image needs its pixels.
            pairs = [p._replace(input1=self.features.read(i[1])) for i, p in batch]
        return self.predictor.match_turned(pairs, maps0, maps1)


def build_shard_matcher(
    options: CollectionOptions, weights: Path, path_of: Callable[[int], str]
) -> ShardMatcher:
    """A matcher of shards with the weights in a safetensors file, for a process of its own; raises
    as `load_matcher`. `path_of` gives the path of an image by number."""
    warm_allocator()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    predictor = load_matcher(weights, options)
    features = ImageFeatures(
        predictor, path_of, cache_bytes=options.cache_mb * 10**6, readers=options.readers
    )
    return ShardMatcher(predictor, features, options.batch_size)


def batches(pairs: dict[int, PreparedPair], size: int) -> list[list[int]]:
    """The keys of `pairs` in batches of one size of feature maps, in order within a size."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for i, pair in pairs.items():
        groups.setdefault(tuple(image.valid.shape for image in pair), []).append(i)
    return [g[k : k + size] for g in groups.values() for k in range(0, len(g), size)]


def run_local(
    run: Run, match: Callable[[Task, Task | None], Shard], published: Callable[[Shard], None]
) -> None:
    """Match what is missing; the caller holds the lock of the run.

    `match` gives the results of a shard and is told the next one, to read ahead; `published` hears
    of each shard once it is on the disk. `StorageError` (E401) if it cannot be written.
    """
    numbers = run.missing()
    for number, following in zip_longest(numbers, numbers[1:]):
        upcoming = None if following is None else task_of(run, following)
        shard = match(task_of(run, number), upcoming)
        run.write(number, shard)
        published(shard)


def task_of(run: Run, number: int) -> Task:
    return run.pairs.index[run.range(number)], run.duplicates(number)


def _images(task: Task) -> list[int]:
    pairs, duplicate = task
    return list(dict.fromkeys(pairs[~duplicate].ravel().tolist()))
