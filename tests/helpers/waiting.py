"""Work for the tests of processes; it imports next to nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from matcher.errors import Code, ImageError


def nothing() -> None:
    """A set-up that does nothing."""


def wait(mark: Path) -> None:
    """Work that leaves a mark and would take a minute."""
    mark.touch()
    time.sleep(60)


def die(mark: Path) -> None:
    """Work whose process is killed, as one that takes too much memory is."""
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(mark: Path) -> None:
    raise ImageError(Code.DAMAGED_IMAGE, mark.name, "is damaged")
