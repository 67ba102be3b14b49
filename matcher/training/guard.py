"""Steps whose loss or gradient is not finite are skipped and counted; many of them end the run."""

from __future__ import annotations

from collections import deque

from matcher.errors import MatcherError

WINDOW = 1000
ALLOWED = 10
"""Bad steps in the last `WINDOW`: 1%, and so also the most that may follow each other."""


class DivergedError(MatcherError):
    """Training does not converge: too many steps with a loss or gradient that is not finite."""

    exit_code = 1


class NonFiniteGuard:
    """Counts the steps that were skipped."""

    def __init__(self) -> None:
        self.total = 0
        self._bad: deque[int] = deque()

    def bad(self, step: int) -> bool:
        """Count step `step` as skipped; True if the run must stop."""
        self.total += 1
        self._bad.append(step)
        while self._bad[0] <= step - WINDOW:
            self._bad.popleft()
        return len(self._bad) > ALLOWED

    def state(self) -> dict[str, object]:
        return {"total": self.total, "bad": list(self._bad)}

    def restore(self, state: dict) -> None:
        self.total = int(state["total"])
        self._bad = deque(int(step) for step in state["bad"])
