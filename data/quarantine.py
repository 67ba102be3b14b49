"""Corrupt samples: noted with their path, replaced by a neighbour, and too many of them refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from data.stream import Key
from matcher.errors import ImageError, MatcherError

logger = logging.getLogger(__name__)

LIMIT = 0.001
STRIDE = 7919
"""A prime: replacements come from elsewhere, often from another scene."""


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

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: int | Key) -> Any:
        """The sample, or the first readable one of its replacements.

        Raises:
            ImageError: more than the allowed share of the samples is corrupt (E106).
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        for _ in range(len(self)):
            try:
                return self.dataset[epoch, index]
            except MatcherError as error:
                self._note(index, error)
                index = (index + STRIDE) % len(self)
        raise ImageError(106, self.notes, "no sample can be read")

    def _note(self, index: int, error: MatcherError) -> None:
        known = self.bad()
        if index in known:
            return
        logger.warning("sample %d replaced: %s", index, error)
        self.notes.parent.mkdir(parents=True, exist_ok=True)
        with self.notes.open("a", encoding="utf-8") as file:
            file.write(f"{index}\t{error}\n")
        count = len(known) + 1
        if count > max(1, self.limit * len(self)):
            share = f"{count} of {len(self)} samples cannot be read (limit {self.limit:.1%})"
            raise ImageError(106, self.notes, share, "the file lists them")

    def bad(self) -> set[int]:
        """Indices noted so far."""
        if not self.notes.is_file():
            return set()
        lines = self.notes.read_text(encoding="utf-8").splitlines()
        return {int(line.split("\t")[0]) for line in lines if line}
