"""What people run into in the field, as programs: each exits 0 where the behavior is right.

A program is a ``.py`` or ``.sh`` beside this file. It takes no argument, runs from the root of the
checkout, finds this interpreter as ``python``, and says what it saw. One that cannot run here
exits with `SKIPPED` after saying why; one that holds the line `SLOW` runs with the slow tests.
A ``.py`` runs in a fork of this process, which has imported the library for all of them.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import eval.__main__  # noqa: F401
import match  # noqa: F401
import train  # noqa: F401
from tests.helpers.forks import finish, fork

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
SKIPPED = 77
SLOW = "# slow"
PROGRAMS = sorted({*FOLDER.glob("*.py"), *FOLDER.glob("*.sh")} - {Path(__file__).resolve()})


def marks(program: Path) -> list[pytest.MarkDecorator]:
    slow = SLOW in program.read_text(encoding="utf-8").splitlines()
    return [pytest.mark.slow, pytest.mark.timeout(1200)] if slow else []


def run_here(program: Path) -> None:
    """Run a program of Python in this process, and end the process with its exit code."""
    code = None
    try:
        runpy.run_path(str(program), run_name="__main__")
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    os._exit(int(code or 0))


def exit_code(program: Path) -> int:
    """The exit code of a program, whatever it has started being ended with it."""
    if program.suffix == ".sh":
        return subprocess.run(["bash", str(program)], check=False).returncode
    child = fork(partial(run_here, program))
    try:
        return finish(child)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


@pytest.mark.parametrize(
    "program", [pytest.param(path, id=path.name, marks=marks(path)) for path in PROGRAMS]
)
def test_the_program_exits_0(
    program: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    code = exit_code(program)
    said = "".join(capfd.readouterr())
    if code == SKIPPED:
        pytest.skip(said.strip().splitlines()[-1])
    assert code == 0, said
