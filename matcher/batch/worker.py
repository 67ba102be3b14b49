"""Matching shard after shard on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from matcher.batch.feature_cache import ImageFeatures
from matcher.batch.image_names import Root
from matcher.batch.options import CollectionOptions
from matcher.batch.run import Run
from matcher.batch.shards import DUPLICATE, NO_MATCH, PENDING, Shard
from matcher.errors import Code, ImageError, StorageError, UsageError
from matcher.files import sha256_of
from matcher.images.preprocess import PreparedPair
from matcher.predictor import Predictor, load_matcher
from matcher.runtime import in_halves, own_settings, warm_allocator
from matcher.structures import Matches
from matcher.weights.checkpoint import quality_sha256
from matcher.weights.hub import is_bundled

Task = tuple[np.ndarray, np.ndarray]
"""(n, 2) images of the pairs of a shard and (n,) bool of the duplicates among them."""
Numbered = tuple[Sequence[int], PreparedPair]
"""The numbers of two images and the images."""
KEEP_SECONDS = 10.0


class Draft:
    """Results of a shard while it is matched.

    Args:
        results: the matches of each pair, or its status.
        keep: takes what there is, every `KEEP_SECONDS` and when the matching is interrupted.
    """

    def __init__(
        self, results: list[Matches | int], keep: Callable[[Shard], None] = lambda shard: None
    ) -> None:
        self.results = results
        self._keep = keep
        self._kept = time.monotonic()
        self._news = False

    @property
    def pending(self) -> list[bool]:
        return [isinstance(result, int) and result == PENDING for result in self.results]

    def add(self, results: Mapping[int, Matches | int]) -> None:
        """Results of some pairs by their place in the shard."""
        for i, result in results.items():
            self.results[i] = result
        self._news = self._news or bool(results)
        if time.monotonic() - self._kept > KEEP_SECONDS:
            self.keep()

    def keep(self) -> None:
        """Give away what is new."""
        if self._news:
            self._keep(Shard.of(self.results))
            self._news = False
            self._kept = time.monotonic()


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
        self.reasons: dict[str, None] = {}
        """Why images could not be read, each once."""

    @own_settings()
    def match(self, task: Task, upcoming: Task | None = None, draft: Draft | None = None) -> Shard:
        """The results of a shard; the images of `upcoming` are read meanwhile. Pairs of `draft`
        that are not pending keep their results."""
        pairs, duplicate = task
        draft = draft or Draft([PENDING] * len(pairs))
        pending = draft.pending
        known: dict[int, Matches | int] = {}
        able: dict[int, PreparedPair] = {}
        self.features.read_ahead(_images(task))
        for i in range(len(pairs)):
            ready = DUPLICATE if duplicate[i] else self._read(pairs[i].tolist())
            if not isinstance(ready, int):
                able[i] = ready
            elif pending[i]:
                known[i] = ready
        draft.add(known)
        if upcoming is not None:
            self.features.read_ahead(_images(upcoming))
        # Batches are those of the whole shard, so that an interruption changes no result.
        for batch in batches(able, self.batch_size):
            left = [i for i in batch if pending[i]]
            if left:
                draft.add(dict(zip(left, self._matched(pairs, able, left), strict=True)))
        self.features.forget_reads(but=() if upcoming is None else _images(upcoming))
        return Shard.of(draft.results)

    def _matched(
        self, pairs: np.ndarray, able: Mapping[int, PreparedPair], batch: Sequence[int]
    ) -> list[Matches | int]:
        """Results of a batch, or of its halves where it does not fit into memory."""
        numbered = [(pairs[i].tolist(), able[i]) for i in batch]
        return in_halves(self._match, numbered, lambda _: Code.OUT_OF_MEMORY, self.features.clear)

    def _read(self, images: Sequence[int]) -> PreparedPair | int:
        """Both images, or the status of a pair that cannot be matched."""
        try:
            pair = PreparedPair(*(self.features.input(image) for image in images))
        except (ImageError, UsageError) as error:
            self.reasons[str(error)] = None
            return error.code
        except MemoryError:
            return Code.OUT_OF_MEMORY
        return NO_MATCH if pair.reason else pair

    def _match(self, batch: Sequence[Numbered]) -> Sequence[Matches | int]:
        pairs = [pair for _, pair in batch]
        maps0, maps1 = (
            [self.features.features(images[side]) for images, _ in batch] for side in (0, 1)
        )
        if self.predictor.looks_again:
            # For that, images need their pixels.
            pairs = [PreparedPair(*map(self.features.read, images)) for images, _ in batch]
        return self.predictor.match_prepared(pairs, maps0, maps1)


def build_shard_matcher(
    options: CollectionOptions, weights: Path, run: Run, root: Root
) -> ShardMatcher:
    """A matcher of the shards of a run with the weights in a safetensors file, for a process of its
    own. Images that are not those of the run fail (E107).

    Raises:
        UsageError: the weights are not those of the run (E206).
        MatcherError: as `load_matcher`.
    """
    warm_allocator()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    predictor = load_matcher(weights, options)
    # Afterwards: what is replaced between is then noticed, at worst for nothing.
    require_same_weights(run, weights)
    features = ImageFeatures(
        predictor,
        lambda image: root.path(run.pairs.names[image]),
        cache_bytes=options.cache_mb * 10**6,
        readers=options.readers,
        require_same=run.images.require_same,
        mask_of=run.images.mask,
    )
    return ShardMatcher(predictor, features, options.batch_size)


def fingerprints_of(weights: Path) -> dict[str, str | bool]:
    """What of weights, how they are run and their quality head decides results, for the settings
    of a run."""
    return {
        "weights_sha256": sha256_of(weights),
        "run_as_bundled": is_bundled(weights),
        "quality_sha256": quality_sha256(weights),
    }


def require_same_weights(run: Run, weights: Path) -> None:
    """Refuse weights that are not those that a run began with (E206)."""
    if not fingerprints_of(weights).items() <= dict(run.manifest.settings).items():
        what, remedy = "was replaced while the collection ran", "run again, or use a copy of it"
        raise UsageError(Code.OTHER_SETTINGS, weights, what, remedy)


def batches(pairs: dict[int, PreparedPair], size: int) -> list[list[int]]:
    """The keys of `pairs` in batches of one size of feature maps, in order within a size."""
    groups: dict[tuple[torch.Size, ...], list[int]] = {}
    for i, pair in pairs.items():
        groups.setdefault(tuple(image.valid.shape for image in pair), []).append(i)
    return [g[k : k + size] for g in groups.values() for k in range(0, len(g), size)]


def run_local(
    run: Run, match: Callable[[Task, Task | None, Draft], Shard], published: Callable[[int], None]
) -> None:
    """Match what is missing; the caller holds the lock of the run.

    `match` gives the results of a shard, puts what it has into a draft, and is told the next shard,
    to read ahead; `published` hears how many more pairs are on the disk with each shard that is.
    `StorageError` (E401) if it cannot be written.
    """
    numbers, drafts = run.missing(), run.drafts()
    for number, following in zip_longest(numbers, numbers[1:]):
        upcoming = None if following is None else task_of(run, following)
        path, before = drafts.get(number, (None, None))
        shelf = _Shelf(run, number, path)
        if before is None:
            draft = Draft([PENDING] * run.length(number), shelf.keep)
        else:
            draft = Draft(before.results(), shelf.keep)
        left = sum(draft.pending)
        try:
            shard = match(task_of(run, number), upcoming, draft)
        except BaseException:
            with suppress(StorageError):
                draft.keep()
            raise
        run.write(number, shard)
        shelf.clear()
        published(left)


class _Shelf:
    """Where the one draft of a shard lies."""

    def __init__(self, run: Run, number: int, path: Path | None) -> None:
        self.run, self.number, self.path = run, number, path

    def keep(self, shard: Shard) -> None:
        older, self.path = self.path, self.run.keep(self.number, shard)
        if older is not None and older != self.path:
            older.unlink(missing_ok=True)

    def clear(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def task_of(run: Run, number: int) -> Task:
    return run.pairs.index[run.range(number)], run.duplicates(number)


def _images(task: Task) -> list[int]:
    pairs, duplicate = task
    return list(dict.fromkeys(pairs[~duplicate].ravel().tolist()))
