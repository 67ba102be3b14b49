"""Closed, broken and full streams: no traceback, the promised exit code, and no lost result."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from matcher.errors import Code, UsageError
from matcher.terminal.program import LastingStream, lasting_streams, program

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
PROGRAMS = ["match.py", "-m matcher.weights"]


class Failing(io.StringIO):
    """A stream whose device fails from the first character on."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.tries = number, 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise OSError(self.number, os.strerror(self.number))


def test_after_an_error_nothing_is_written_and_nothing_raised() -> None:
    failing = Failing(errno.ENOSPC)
    stream = LastingStream(failing)
    assert [stream.write("one"), stream.write("three")] == [3, 5]
    assert failing.tries == 1
    assert stream.lost is not None
    stream.flush()


def test_a_reader_who_goes_away_loses_nothing() -> None:
    stream = LastingStream(Failing(errno.EPIPE))
    stream.write("text")
    assert stream.error is not None
    assert stream.lost is None


def test_no_stream_takes_everything() -> None:
    stream = LastingStream(None)
    assert stream.write("text") == 4
    assert not stream.isatty()
    with pytest.raises(OSError, match="no such stream"):
        stream.fileno()


def test_a_whole_stream_is_written_as_ever() -> None:
    whole = io.StringIO()
    stream = LastingStream(whole)
    stream.write("text")
    assert whole.getvalue() == "text"
    assert stream.closed is False


def test_the_streams_of_the_process_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii", "strict")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    with lasting_streams():
        sys.stdout.write("ä\udcff")
    assert sys.stdout is ascii_only
    assert ascii_only.errors == "strict"
    assert ascii_only.buffer.getvalue() == b"\\xe4\\udcff"  # pyright: ignore


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 4), (errno.EIO, 4), (errno.EPIPE, 0)])
def test_lost_output_is_an_error_of_storage(
    number: int,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    @program()
    def main(words: list[str]) -> int:
        sys.stdout.write("working\n")
        (tmp_path / "result").write_text(words[0])
        return 0

    monkeypatch.setattr(sys, "stdout", Failing(number))
    assert main(["done"]) == code
    assert (tmp_path / "result").read_text() == "done"
    told = capsys.readouterr().err
    assert told.startswith("E401 standard output: ") == (code == 4)
    assert told.count("\n") == (code == 4)


def test_an_error_keeps_its_exit_code_without_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    @program()
    def main(words: list[str]) -> int:
        raise UsageError(Code.REFUSED_WORD, words[0], "is refused")

    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    monkeypatch.setattr(sys, "stderr", Failing(errno.ENOSPC))
    assert main(["word"]) == 2


def test_want_of_memory_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    @program()
    def main(words: list[str]) -> int:
        raise RuntimeError(words[0])

    assert main(["DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"]) == 3
    error = capsys.readouterr().err
    assert error.startswith("E131 ")
    assert error.count("\n") == 1
    with pytest.raises(RuntimeError, match="of ours"):
        main(["a bug of ours"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_is_told_has_the_code_of_its_signal(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @program()
    def main(words: list[str]) -> int:
        raise InterruptedError(number, "stopped; the same words go on")

    assert main([]) == 128 + number
    assert capsys.readouterr().err == "stopped; the same words go on\n"


def shell(command: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of a command of bash, in which ``python`` is this one."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=ROOT,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@needs_full
@pytest.mark.parametrize("name", PROGRAMS)
def test_help_that_nobody_gets_is_one_error(name: str) -> None:
    code, told = shell(f"python {name} --help > /dev/full")
    assert code == 4
    assert told.startswith("E401 standard output: cannot write: No space left")
    assert told.count("\n") == 1


@pytest.mark.parametrize("buffered", ["", "1"])
def test_help_whose_reader_goes_away_is_done(buffered: str) -> None:
    assert shell("python match.py --help | true", PYTHONUNBUFFERED=buffered) == (0, "")


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&- <&-"])
def test_a_program_without_streams_matches(
    closed: str, tmp_path: Path, random_weights: str
) -> None:
    words = f"assets/demo0.jpg assets/demo1.jpg max_side=128 weights={random_weights}"
    code, _ = shell(f"python match.py {words} output={tmp_path}/m.h5 {closed}")
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.h5", "m.png"]


@needs_full
def test_matches_are_written_though_their_number_cannot_be(
    tmp_path: Path, random_weights: str
) -> None:
    words = f"assets/demo0.jpg assets/demo1.jpg max_side=128 weights={random_weights}"
    code, told = shell(f"python match.py {words} output={tmp_path}/m.npz > /dev/full")
    assert code == 4
    assert told.startswith("E401 standard output: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.npz", "m.png"]


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a tiny random model."""
    from matcher.weights.checkpoint import save_safetensors
    from tests.helpers.models import tiny_model

    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_safetensors(tiny_model(), path)
    return str(path)
