"""A program of this folder that runs in a tree, perhaps another commit's, and answers questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any


class TreeProcess:
    """A process that imports a tree's packages and answers a line with one of JSON.

    Raises:
        RuntimeError: it ended, from `ask` and `answer`.
    """

    def __init__(self, tree: Path, program: str, *words: str, threads: int) -> None:
        self.program = Path(__file__).with_name(program)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(self.program), *words, str(threads)],
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, *words: object) -> None:
        """Send a line; the answer is read by `answer`."""
        try:
            print(*words, file=self._pipe(self._process.stdin), flush=True)
        except BrokenPipeError as error:
            raise self._ended() from error

    def answer(self) -> list[Any]:
        """The values of the next line."""
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ended(self) -> RuntimeError:
        return RuntimeError(f"{self.program.name} ended with {self._process.wait()}")

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise RuntimeError("the process has no pipes")
        return pipe
