"""Steps whose loss or gradient is not finite: skipped, counted, and kept to look at."""

from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from matcher.errors import MatcherError
from matcher.files import make_folder, write_atomically
from matcher.structures import TensorFields

WINDOW = 1000
ALLOWED = 10
"""Skipped steps in the last `WINDOW`: 1%, and so also the most that may follow each other."""


class DivergedError(MatcherError):
    """Training does not converge: too many steps with a loss or gradient that is not finite."""

    exit_code = 2


class SkippedSteps:
    """Counts the steps that were skipped."""

    def __init__(self) -> None:
        self.total = 0
        self._recent: deque[int] = deque()

    def add(self, step: int) -> bool:
        """Count step `step` as skipped; True if the run must stop."""
        self.total += 1
        self._recent.append(step)
        while self._recent[0] <= step - WINDOW:
            self._recent.popleft()
        return len(self._recent) > ALLOWED

    def state(self) -> dict[str, object]:
        return {"total": self.total, "bad": list(self._recent)}

    def restore(self, state: dict) -> None:
        self.total = int(state["total"])
        self._recent = deque(int(step) for step in state["bad"])


@dataclass
class StepSnapshot:
    """What is needed to undo an optimizer step, which may consist of several batches, and to
    look at it later."""

    buffers: list[Tensor] = field(default_factory=list)
    """Of the model before the step; empty until it has begun."""
    pair: TensorFields | None = None
    """The first batch whose loss is not finite, otherwise the latest."""
    seed: int = 0
    """Of the random draws of that batch."""
    faulty: bool = False
    """A loss of the step is not finite."""

    def begin_batch(self, model: nn.Module, pair: TensorFields, seed: int) -> None:
        """Note the batch, and the buffers if it is the first one."""
        if not self.buffers:
            self.buffers = [b.clone() for b in model.buffers()]
        if not self.faulty:
            self.pair, self.seed = pair, seed

    def end_batch(self, loss: Tensor) -> None:
        self.faulty = self.faulty or not bool(torch.isfinite(loss))

    def undo(self, model: nn.Module) -> None:
        """Give the model the buffers that it had before."""
        for buffer, before in zip(model.buffers(), self.buffers, strict=True):
            buffer.copy_(before)

    def save(self, path: Path, model: nn.Module, config: dict[str, Any]) -> None:
        """Write what brings the batch back, by name: ``weights``, ``pair``, ``seed`` of its random
        draws and ``config`` of the run; plain types only, all of it or nothing (E401)."""
        if self.pair is None:
            return
        weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        values = {"weights": weights, "pair": _plain(self.pair), "seed": self.seed}
        buffer = io.BytesIO()
        torch.save(values | {"config": config}, buffer)
        make_folder(path.parent)
        write_atomically(path, buffer.getvalue())


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
