"""What people run into in the field, as programs: each exits 0 where the behavior is right.

A program is a ``.py`` or ``.sh`` beside this file. It takes no argument, runs from the root of the
checkout, finds this interpreter as ``python``, and says what it saw. One that cannot run here
exits with `SKIPPED` after saying why; one that holds the line `SLOW` runs with the slow tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
RUNNERS = {".py": sys.executable, ".sh": "bash"}
SKIPPED = 77
SLOW = "# slow"
SECONDS = 230
PROGRAMS = sorted(
    path for path in FOLDER.iterdir() if path.suffix in RUNNERS and path != Path(__file__).resolve()
)


def marks(program: Path) -> list[pytest.MarkDecorator]:
    slow = SLOW in program.read_text(encoding="utf-8").splitlines()
    return [pytest.mark.slow, pytest.mark.timeout(1200)] if slow else []


@pytest.mark.parametrize(
    "program", [pytest.param(path, id=path.name, marks=marks(path)) for path in PROGRAMS]
)
def test_the_program_exits_0(program: Path) -> None:
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    done = subprocess.run(
        [RUNNERS[program.suffix], str(program)],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join(folders), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=None if marks(program) else SECONDS,
    )
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout
