"""Workers of an evaluation: what interrupts it ends them, and one that is killed is one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from eval.processes import in_processes
from matcher.errors import ImageError, ProcessError
from tests.helpers import waiting


def interrupt_after(marks: list[Path]) -> None:
    """Ctrl-C once work has begun; at the latest after a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not any(mark.exists() for mark in marks):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interruption_ends_the_workers_where_they_are(tmp_path: Path, capfd) -> None:
    marks = [tmp_path / str(i) for i in range(9)]
    threading.Thread(target=interrupt_after, args=(marks,)).start()
    counted: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        in_processes(waiting.wait, marks, 2, waiting.nothing, lambda: counted.append(1))
    assert 1 <= sum(mark.exists() for mark in marks) <= 2
    assert multiprocessing.active_children() == []
    assert counted == []
    assert capfd.readouterr().err == ""


def test_a_killed_worker_is_one_line_with_its_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"E302 workers: .*killed.*what is done is kept") as told:
        in_processes(waiting.die, [tmp_path / "a", tmp_path / "b"], 2, waiting.nothing, list)
    assert told.value.exit_code == 3
    assert multiprocessing.active_children() == []


def test_an_error_of_ours_arrives_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="E102 a: is damaged"):
        in_processes(waiting.refuse, [tmp_path / "a"], 1, waiting.nothing, list)
