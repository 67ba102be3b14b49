"""Errors of samples, carried from a loader process to the training process as they are.

A DataLoader passes on the text of an exception alone: an error of ours would lose its type, its
code and its exit status, and look like a process that died.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from matcher.errors import MatcherError


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
