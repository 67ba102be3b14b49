"""Work in several processes, which ends at once with the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import TypeVar

from matcher.errors import Code, ProcessError

Item = TypeVar("Item")
REMEDY = "run again, what is done is kept; fewer workers= take less memory"


def in_processes(
    work: Callable[[Item], None],
    items: Sequence[Item],
    workers: int,
    set_up: Callable[[], None],
    done: Callable[[], object],
) -> None:
    """Call `work` with every item in processes that began with `set_up`, and `done` after each.

    Whatever ends this early, such as an interruption, ends the processes where they are: `work`
    must publish what it makes whole or not at all.

    Raises:
        ProcessError: a process was killed (E302).
        Exception: what `work` raised.
    """
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    begin = partial(_begin, set_up)
    futures: list[Future[None]] = []
    pool = ProcessPoolExecutor(min(workers, len(items)), context, initializer=begin)
    try:
        with _interrupts_held():
            futures = [pool.submit(work, item) for item in items]
        for future in futures:
            # In short turns: a signal that another thread takes wakes nobody who waits.
            while not wait_for([future], timeout=1.0).done:
                pass
            future.result()
            done()
    except BrokenProcessPool as error:
        what = "a process was killed, perhaps for want of memory"
        raise ProcessError(Code.DEAD_LOADER, "workers", what, REMEDY) from error
    finally:
        # After all items the pool ends by itself; otherwise nothing waits for pairs under way.
        if not all(future.done() for future in futures):
            for process in set(multiprocessing.active_children()) - others:
                process.kill()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that start meanwhile never see Ctrl-C, which a terminal sends to them too: this one
    ends them. It is interrupted itself once they have started."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(set_up: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    set_up()


def _leave_with_parent() -> None:
    """A killed parent cannot end its workers: they notice and leave."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
