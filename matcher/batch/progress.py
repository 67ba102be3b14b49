"""How far a run is: a bar on a terminal, plain lines elsewhere, and a log in its folder."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from matcher.errors import unwritable

LOG = "run.log"
LINE_SECONDS = 10.0


class Progress:
    """Shows pairs per second and the time left.

    Of `total` pairs `done` were matched before. A bar (on a terminal) or plain lines (elsewhere)
    go to `stream`, lines with dates to the file `log`; E401 if it cannot be written.
    """

    def __init__(self, total: int, done: int, log: Path, stream: TextIO | None = None) -> None:
        self.total = total
        self.done = self.before = done
        self.stream = sys.stderr if stream is None else stream
        self._started = self._shown = time.monotonic()
        self._log = log
        self._bar: tqdm | None = None
        if self.stream.isatty():
            how = {"unit": "pair", "file": self.stream, "smoothing": 0.1}
            self._bar = tqdm(total=total, initial=done, **how)
        self.note(f"started with {done} of {total} pairs on {socket.gethostname()}")

    def advance(self, pairs: int) -> None:
        """So many more pairs are on the disk."""
        self.done += pairs
        if self._bar is not None:
            self._bar.update(pairs)
        now = time.monotonic()
        if now - self._shown >= LINE_SECONDS or self.done == self.total:
            self._shown = now
            self.note(self.line(now))
            if self._bar is None:
                self.stream.write(f"{self.line(now)}\n")
                self.stream.flush()

    def line(self, now: float) -> str:
        rate = (self.done - self.before) / max(now - self._started, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        span = timedelta(seconds=round(min(left, 1e9)))
        return f"{self.done} of {self.total} pairs, {rate:.2f} pairs/s, {span} left"

    def note(self, text: str) -> None:
        """A line in the log."""
        try:
            with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                date = datetime.now().astimezone().isoformat(timespec="seconds")
                file.write(f"{date} {os.getpid()} {text}\n")
        except OSError as error:
            raise unwritable(self._log, error) from error

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Notes(logging.Handler):
    """Takes warnings to the log of a run."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self.progress.note(f"warning {record.getMessage()}")


@contextmanager
def warnings_noted(progress: Progress) -> Iterator[None]:
    """Meanwhile, what the library warns of goes to the log of a run, not to the terminal."""
    library, notes = logging.getLogger("matcher"), _Notes(progress)
    library.addHandler(notes)
    try:
        yield
    finally:
        library.removeHandler(notes)
