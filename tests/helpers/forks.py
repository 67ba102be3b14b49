"""Children of the process of the tests: they start with all that it has imported."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a child; its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    try:
        work()
        sys.stdout.flush()
        os._exit(0)
    except Exception as error:
        sys.stdout.write(f"child failed: {error!r}\n")
        sys.stdout.flush()
    finally:
        os._exit(1)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(child: int, after: float) -> None:
    """Kill the child and its workers at a moment, unless it is done before."""
    end = time.monotonic() + after
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.005)
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # So young that it leads no group yet, and has no workers.
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
