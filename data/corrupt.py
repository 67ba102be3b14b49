"""Corrupt samples: files that cannot be read, in a dataset that nobody can repair on the spot.

`Replacing` puts another sample in the place of a corrupt one, notes it, and raises once there are
too many. `Reporting` carries what is raised out of a loader process: an exception would arrive as
a `RuntimeError` with a traceback as its text, so it travels as a batch, a `CorruptSample`, which
`data.datamodule` raises again where the training happens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import gcd
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from data.order import Key
from matcher.errors import Code, ImageError, MatcherError

logger = logging.getLogger(__name__)

LIMIT = 0.001
STRIDE = 7919
"""A prime: replacements come from elsewhere, often from another scene."""
IN_A_ROW = 50
"""So many corrupt samples one after the other are no accident, however large the dataset."""
REPAIR = "the file lists them; delete it once they are repaired"


class CorruptSample:
    """Stands for a batch of which a sample could not be read."""

    def __init__(self, error: MatcherError) -> None:
        self.error = error


@dataclass(eq=False)
class Reporting(Dataset[Any]):
    """`dataset` for a loader, which gets one `CorruptSample` where it raises a `MatcherError`."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, keys: Sequence[Any]) -> list[Any]:
        try:
            return [self.dataset[key] for key in keys]
        except MatcherError as error:
            return [CorruptSample(error)]


def collate(items: Sequence[Any]) -> Any:
    """A batch of samples that know how to make one, or the `CorruptSample` that stands for it."""
    first = items[0]
    return first if isinstance(first, CorruptSample) else type(first).collate(items)


class Replacing(Dataset[Any]):
    """`dataset` with others in the place of its corrupt samples.

    The replacement is a function of the index, so that runs repeat whatever the workers. The file
    `notes` gets lines ``index<tab>message``; all workers and restarts append to it. `limit` is the
    largest share of corrupt samples in the dataset; one is always allowed.
    """

    def __init__(self, dataset: Any, notes: Path, limit: float = LIMIT) -> None:
        self.dataset = dataset
        self.notes = CorruptNotes(notes)
        self.limit = limit
        self.stride = coprime_stride(len(dataset))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | Key) -> Any:
        """The sample, or the first readable one of its replacements.

        Raises:
            ImageError: more than the allowed share of the samples is corrupt, or as many as
                `IN_A_ROW` one after the other (E106).
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        tries = min(len(self), IN_A_ROW)
        last: MatcherError | None = None
        for _ in range(tries):
            try:
                return self.dataset[epoch, index]
            except MatcherError as error:
                last = error
                self._note(index, error)
                index = (index + self.stride) % len(self)
        what = f"{tries} samples in a row cannot be read, the last one: {last}"
        raise ImageError(Code.CORRUPT_SAMPLES, self.notes.path, what, REPAIR) from last

    def _note(self, index: int, error: MatcherError) -> None:
        if not self.notes.add(index, error):
            return
        logger.warning("sample %d replaced: %s", index, error)
        corrupt = len(self.notes.indices())
        if corrupt > max(1, self.limit * len(self)):
            what = f"{corrupt} of {len(self)} samples cannot be read (limit {self.limit:.1%})"
            raise ImageError(Code.CORRUPT_SAMPLES, self.notes.path, what, REPAIR)


class CorruptNotes:
    """The list of corrupt samples in a file that several processes append to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._indices: set[int] = set()
        self._bytes_read = 0

    def add(self, index: int, error: MatcherError) -> bool:
        """Note a sample; False if anybody has noted it already."""
        if index in self.indices():
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(f"{index}\t{error}\n".encode("utf-8", "backslashreplace"))
        return True

    def indices(self) -> set[int]:
        """Samples noted so far, by whole lines, in this process or another one."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size < self._bytes_read:
            self._indices, self._bytes_read = set(), 0
        if size > self._bytes_read:
            with self.path.open("rb") as file:
                file.seek(self._bytes_read)
                added = file.read()
            whole = added[: added.rfind(b"\n") + 1]
            self._indices |= {int(line.split(b"\t")[0]) for line in whole.splitlines() if line}
            self._bytes_read += len(whole)
        return set(self._indices)


def coprime_stride(length: int) -> int:
    """The first of `STRIDE`, `STRIDE` + 1000, ... whose multiples visit all of `length` indices."""
    return next(stride for stride in count(STRIDE, 1000) if gcd(stride, length) == 1)
