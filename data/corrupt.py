"""Samples that cannot be read: how their errors travel, and how they are replaced."""

from __future__ import annotations

import logging
from itertools import count
from math import gcd
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from data.order import Key
from matcher.errors import Code, ImageError, MatcherError


class Failure:
    """Stands for a sample, or a batch, that could not be read."""

    def __init__(self, error: MatcherError) -> None:
        self.error = error


class Reporting(Dataset[Any]):
    """`dataset`, whose items are a `Failure` where it raises a `MatcherError`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except MatcherError as error:
            return Failure(error)


logger = logging.getLogger(__name__)

LIMIT = 0.001
STRIDE = 7919
"""A prime: replacements come from elsewhere, often from another scene."""
IN_A_ROW = 50
"""So many unreadable samples one after the other are no accident, however large the dataset."""
REPAIR = "delete the file once the samples are repaired"


class Quarantined(Dataset[Any]):
    """A dataset whose corrupt samples are replaced.

    The replacement is a function of the index, so that runs repeat whatever the workers. The notes
    are lines ``index<tab>message`` in a file that all workers and restarts append to.

    Args:
        dataset: raises `MatcherError` for a sample that cannot be read.
        notes: file of the notes.
        limit: largest share of corrupt samples in the dataset; one is always allowed.
    """

    def __init__(self, dataset: Any, notes: Path, limit: float = LIMIT) -> None:
        self.dataset = dataset
        self.notes = notes
        self.limit = limit
        self.stride = coprime_stride(len(dataset))
        self._known: set[int] = set()
        self._bytes_read = 0

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
        raise ImageError(
            Code.CORRUPT_SAMPLES, self.notes, what, f"check the paths; {REPAIR}"
        ) from last

    def _note(self, index: int, error: MatcherError) -> None:
        self._read_notes()
        if index in self._known:
            return
        logger.warning("sample %d replaced: %s", index, error)
        self.notes.parent.mkdir(parents=True, exist_ok=True)
        with self.notes.open("ab") as file:
            file.write(f"{index}\t{error}\n".encode("utf-8", "backslashreplace"))
        self._read_notes()
        bad = len(self._known)
        if bad > max(1, self.limit * len(self)):
            share = f"{bad} of {len(self)} samples cannot be read (limit {self.limit:.1%})"
            raise ImageError(
                Code.CORRUPT_SAMPLES, self.notes, share, f"the file lists them; {REPAIR}"
            )

    def bad(self) -> set[int]:
        """Indices noted so far."""
        self._read_notes()
        return set(self._known)

    def _read_notes(self) -> None:
        """Whole lines that this or another process has added since the last call."""
        size = self.notes.stat().st_size if self.notes.is_file() else 0
        if size < self._bytes_read:
            self._known, self._bytes_read = set(), 0
        if size == self._bytes_read:
            return
        with self.notes.open("rb") as file:
            file.seek(self._bytes_read)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._known |= {int(line.split(b"\t")[0]) for line in whole.splitlines() if line}
        self._bytes_read += len(whole)


def coprime_stride(length: int) -> int:
    """The first of `STRIDE`, `STRIDE` + 1000, ... whose multiples visit all of `length` indices."""
    return next(stride for stride in count(STRIDE, 1000) if gcd(stride, length) == 1)
