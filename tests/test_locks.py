"""One process a folder, also on disks without locks (`lock=soft`)."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from matcher.errors import StorageError, UsageError
from matcher.files import Lock, only_writer


@pytest.mark.parametrize("lock", ["system", "soft"])
def test_a_second_writer_is_refused_and_the_next_is_not(tmp_path: Path, lock: Lock) -> None:
    with only_writer(tmp_path, "wait", lock=lock):
        inner = only_writer(tmp_path, "wait", lock=lock)
        with pytest.raises(UsageError, match=rf"E207 .*process {os.getpid()}.*wait"), inner:
            pass
    with only_writer(tmp_path, "wait", lock=lock):
        assert (tmp_path / "lock.pid").exists()


def test_a_folder_in_the_place_of_a_file_of_the_lock_is_told(tmp_path: Path) -> None:
    for name in ("lock.pid", "lock"):
        (tmp_path / name / "inside").mkdir(parents=True)
        with pytest.raises(StorageError, match="E401 "), only_writer(tmp_path, "wait"):
            pass
        (tmp_path / name / "inside").rmdir()
        (tmp_path / name).rmdir()
        with only_writer(tmp_path, "wait"):
            pass
        (tmp_path / "lock").unlink(missing_ok=True)


def test_a_soft_lock_is_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    with only_writer(tmp_path, "wait", lock="soft"):
        assert (tmp_path / "lock.soft").is_file()
    assert list(tmp_path.iterdir()) == []


def test_the_soft_lock_of_a_process_killed_on_this_machine_is_taken_over(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with only_writer(tmp_path, "wait", lock="soft"):
                os.write(write, b"x")
                signal.pause()
        finally:
            os._exit(1)
    assert os.read(read, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with only_writer(tmp_path, "wait", seconds=10, lock="soft"):
        assert (tmp_path / "lock.pid").read_text() == str(os.getpid())


def test_that_of_another_machine_has_to_be_removed(tmp_path: Path) -> None:
    (tmp_path / "lock.soft").write_text(f"{os.getpid()}\nnot-{socket.gethostname()}\n")
    with pytest.raises(UsageError, match=r"E207 .*remove .*lock\.soft"):
        with only_writer(tmp_path, "wait", lock="soft"):
            pass
    (tmp_path / "lock.soft").unlink()
    with only_writer(tmp_path, "wait", lock="soft"):
        pass
