"""A run that is killed, meets a full disk, a second writer or a signal loses nothing.

The writer is a forked child with a stub for the network, so that a trial takes milliseconds.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matcher.batch import run as run_module
from matcher.batch.export.packed import pack, verify
from matcher.batch.run import locked, open_run
from matcher.batch.shards import DUPLICATE, NO_MATCH, OK, Shard
from matcher.batch.worker import run_local
from matcher.errors import MatcherError, UsageError
from matcher.files import FaultTolerantFile
from matcher.program.match import Terminated, stop
from tests.helpers.collections_of_pairs import Stub, stub_result, stub_run

KILLED = 128 + signal.SIGKILL


def forked(work: Callable[[], object]) -> int:
    """The process id of a child that does `work` and leaves with its exit code."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except MatcherError as error:
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    except Terminated:
        code = 143
    finally:
        os._exit(code)


def left(pid: int) -> int:
    status = os.waitpid(pid, 0)[1]
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def write_run(folder: Path, acknowledged: Path, pause: float = 0.0) -> None:
    """Start or continue; a byte is appended to `acknowledged` for every shard on the disk."""
    acks = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def published(shard: Shard) -> None:
        os.write(acks, b".")
        time.sleep(pause)

    with locked(folder):
        run_local(stub_run(folder), Stub().match, published)


def die_at(call: int) -> None:
    """Die in this process at a certain write, fsync or replace: before, after or in the midst."""
    count = 0

    def now() -> bool:
        nonlocal count
        count += 1
        return count == call

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*words: Any, **more: Any) -> Any:
            dying = now()
            if not dying or call % 2 == 0:
                function(*words, **more)
            if dying:
                os.kill(os.getpid(), signal.SIGKILL)

        return called

    def write_and_die(write: Callable[[bytes], int], data: bytes) -> int:
        if not now():
            return write(data)
        write(data[: len(data) * (call % 5) // 4])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    for name in ("fsync", "replace"):
        setattr(os, name, mortal(getattr(os, name)))
    intercept_writes(lambda name, value: setattr(Path, name, value), write_and_die)


def intercept_writes(
    patch: Callable[[str, Any], object], instead: Callable[[Callable[[bytes], int], bytes], int]
) -> None:
    """Let `instead` do the writing of new files, given the true write and the data."""
    opened = Path.open

    class Intercepted:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            return instead(self.file.write, data)

    def open_(path: Path, mode: str = "r", *words: Any, **more: Any) -> Any:
        if "x" not in mode:
            return opened(path, mode, *words, **more)
        return Intercepted(opened(path, mode, buffering=0))

    class InterceptedFile(io.FileIO):
        def write(self, data: Any) -> int:
            return instead(super().write, data)

    patch("open", open_)
    FaultTolerantFile.__bases__ = (InterceptedFile,)


def check_complete(folder: Path) -> None:
    """Every pair of a finished run has the result that follows from its images."""
    run = open_run(folder)
    for number, shard in run.read_all():
        where, start = run.range(number), 0
        for i, pair in enumerate(run.pairs.index[where]):
            expected = stub_result(*pair)
            count = 0 if isinstance(expected, int) else len(expected)
            status = expected if isinstance(expected, int) else (OK if count else NO_MATCH)
            if run.pairs.first[where.start + i] < where.start + i:
                status, count = DUPLICATE, 0
            assert (shard.status[i], shard.count[i]) == (status, count)
            if count and not isinstance(expected, int):
                assert (shard.keypoints1[start : start + count] == expected.numpy()[1]).all()
            start += count


def packed_sha(folder: Path) -> str:
    pack(open_run(folder), folder / "packed.h5")
    return hashlib.sha256((folder / "packed.h5").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The fingerprint of the packed file of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write_run(folder, folder / "acks")
    check_complete(folder)
    return packed_sha(folder)


def attempt(folder: Path, chance: random.Random) -> int:
    """One attempt that is killed at random, by the clock or at a call of the system."""
    acks = folder.parent / "acks"
    if chance.random() < 0.5:
        call = chance.randint(1, 90)
        return left(forked(lambda: (die_at(call), write_run(folder, acks))))
    pid = forked(lambda: write_run(folder, acks, pause=0.001))
    time.sleep(chance.uniform(0, 0.06))
    os.kill(pid, signal.SIGKILL)
    return left(pid)


def kill_trials(tmp_path: Path, trials: int) -> int:
    chance, killed = random.Random(trials), 0
    for trial in range(trials):
        place = tmp_path / str(trial)
        (place / "run").mkdir(parents=True)
        killed += attempt(place / "run", chance) == KILLED
        acknowledged = (place / "acks").stat().st_size if (place / "acks").exists() else 0
        if acknowledged:
            run = open_run(place / "run")
            assert len(run.done()) >= acknowledged
            assert verify(run) == []
        write_run(place / "run", place / "acks")
        check_complete(place / "run")
    return killed


def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert kill_trials(tmp_path, 20) >= 10


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_500_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    assert kill_trials(tmp_path, 500) >= 250


def schedules(tmp_path: Path, whole: str, count: int) -> None:
    chance = random.Random(count)
    for trial in range(count):
        place = tmp_path / str(trial)
        (place / "run").mkdir(parents=True)
        for _ in range(chance.randint(1, 5)):
            attempt(place / "run", chance)
        write_run(place / "run", place / "acks")
        assert packed_sha(place / "run") == whole


def test_a_resumed_run_packs_to_the_same_bytes(tmp_path: Path, whole: str) -> None:
    schedules(tmp_path, whole, 10)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_50_resumed_runs_pack_to_the_same_bytes(tmp_path: Path, whole: str) -> None:
    schedules(tmp_path, whole, 50)


def little_disk(size: int) -> None:
    """This process meets a full disk after so many bytes."""
    left = size

    def write(write: Callable[[bytes], int], data: bytes) -> int:
        nonlocal left
        fits = memoryview(data)[:left]
        left -= len(fits)
        write(fits)
        if len(fits) < len(memoryview(data)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(fits)

    intercept_writes(lambda name, value: setattr(Path, name, value), write)


def little_files(size: int) -> None:
    """The kernel refuses this process files of more bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("trials", [12, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("limit", [little_disk, little_files])
def test_a_full_disk_is_exit_4_and_nothing_tears(
    tmp_path: Path, whole: str, trials: int, limit: Callable[[int], None]
) -> None:
    write_run(tmp_path / "sizes", tmp_path / "acks")
    packed_sha(tmp_path / "sizes")
    sizes = [p.stat().st_size for p in (tmp_path / "sizes").rglob("*") if p.is_file()]
    needed = sum(sizes) if limit is little_disk else max(sizes)
    codes = []
    for trial in range(trials):
        folder, acks = tmp_path / str(trial), tmp_path / f"acks{trial}"
        size = max(64, needed * trial // trials)  # Room for the acknowledgements.

        def work(folder: Path = folder, acks: Path = acks, size: int = size) -> None:
            limit(size)
            write_run(folder, acks)
            pack(open_run(folder), folder / "packed.h5")

        codes.append(left(forked(work)))
        assert not list(folder.rglob("*.part"))
        if (folder / "manifest.json").exists():
            run = open_run(folder)
            assert len(run.done()) >= (acks.stat().st_size if acks.exists() else 0)
            assert verify(run) == []
        write_run(folder, acks)
        assert packed_sha(folder) == whole
    assert set(codes) == {4}


def race(folder: Path) -> None:
    """Two writers at once: one gets the lock and is killed, the other is refused with its name."""
    ready, told = os.pipe(), os.pipe()

    def contend() -> None:
        os.read(ready[0], 1)
        with locked(folder):
            os.write(told[1], b"w")
            time.sleep(20)

    writers = [forked(contend) for _ in range(2)]
    os.write(ready[1], b"..")
    started = time.monotonic()
    loser, status = os.wait()
    assert time.monotonic() - started < 2
    assert os.WEXITSTATUS(status) == 2
    assert os.read(told[0], 1) == b"w"
    winner = next(pid for pid in writers if pid != loser)
    with pytest.raises(UsageError, match=f"E207 .*process {winner}"), locked(folder):
        pass
    os.kill(winner, signal.SIGKILL)
    assert left(winner) == KILLED
    with locked(folder):
        pass
    for end in (*ready, *told):
        os.close(end)


@pytest.mark.parametrize("races", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_of_two_writers_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, races: int
) -> None:
    monkeypatch.setattr(run_module, "LOCK_SECONDS", 0.1)
    for trial in range(races):
        race(tmp_path / str(trial))


@pytest.mark.parametrize("trials", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_signals_end_a_run_in_order(tmp_path: Path, whole: str, trials: int) -> None:
    chance, interrupted = random.Random(trials), 0
    for trial in range(trials):
        folder, number = tmp_path / str(trial), chance.choice([signal.SIGINT, signal.SIGTERM])

        def work(folder: Path = folder) -> None:
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, stop)
            write_run(folder, tmp_path / "acks", pause=0.005)

        pid = forked(work)
        time.sleep(chance.uniform(0.02, 0.08))
        started = time.monotonic()
        os.kill(pid, number)
        code = left(pid)
        assert time.monotonic() - started < 10
        interrupted += code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        assert code in (0, 130, 143, 128 + number)
        assert not list(folder.rglob("*.part")) or code == 128 + number
        write_run(folder, tmp_path / "acks")
        assert packed_sha(folder) == whole
    assert interrupted >= trials // 2
