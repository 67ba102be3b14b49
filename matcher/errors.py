"""Errors that a user can cause, each with a code and the exit status of the programs.

Every message is one line: ``E<code> <subject>: <what>; <what to do>``. The programs print it
without a traceback and leave with `exit_code`.

| exit code | meaning |
|---|---|
| 0 | all done (no match is not a failure) |
| 1 | a bug in this project |
| 2 | wrong usage or configuration, missing file |
| 3 | finished, but an input could not be read or did not fit into memory |
| 4 | storage |
| 5 | checkpoint refused |
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Any

_NO_MEMORY = re.compile("out of memory|allocate memory|not enough memory|ALLOC_FAILED")


class MatcherError(Exception):
    """Base of all errors that name something the user can change.

    A loader process of PyTorch turns them into a `RuntimeError`; out of one they therefore travel
    as samples (`data.corrupt`).

    Args:
        code: number shown as ``E<code>``.
        subject: the file or option at fault.
        what: what is wrong, with the offending value.
        remedy: what to do about it.
    """

    exit_code = 1

    def __init__(self, code: int, subject: object, what: str, remedy: str = "") -> None:
        self.code = code
        self.subject = str(subject)
        self.what = what
        self.remedy = remedy
        tail = f"; {remedy}" if remedy else ""
        super().__init__(" ".join(f"E{code} {subject}: {what}{tail}".split()))

    def __reduce__(self) -> tuple[type, tuple[int, str, str, str]]:
        return type(self), (self.code, self.subject, self.what, self.remedy)


class UsageError(MatcherError):
    """A wrong option, configuration value or argument (codes E2xx) or a missing file (E111)."""

    exit_code = 2


class ImageError(MatcherError):
    """An image that is there but cannot be used (codes E101 to E106)."""

    exit_code = 3


class MemoryLimitError(MatcherError):
    """A pair of images that does not fit into the memory of the device, not even alone (E131)."""

    exit_code = 3


class StorageError(MatcherError):
    """A result that cannot be written or read back (codes E4xx)."""

    exit_code = 4


class CheckpointError(MatcherError):
    """Weights that are refused: wrong format, architecture, checksum or values (codes E5xx)."""

    exit_code = 5


def program(run: Callable[[list[str]], int]) -> Callable[..., int]:
    """Make a function of the words of a command line the `main` of a program.

    An error that the user can cause is printed as its one line, an interruption is silent; both
    become exit codes. The word ``--debug`` is taken out and shows the traceback too.

    Args:
        run: the program proper; returns its exit code.

    Returns:
        A function of the words, by default those of the process, that returns the exit code.
    """

    @wraps(run)
    def main(words: Sequence[str] | None = None) -> int:
        words = sys.argv[1:] if words is None else words
        try:
            return run([word for word in words if word != "--debug"])
        except MatcherError as error:
            if "--debug" in words:
                traceback.print_exc()
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except KeyboardInterrupt:
            return 130

    return main


def out_of_memory(error: BaseException) -> bool:
    """Whether memory of any device ran out; only some devices have a type of error for it."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def require_extra(module: str, extra: str, option: str) -> Any:
    """A module of an optional dependency.

    Args:
        module: its name.
        extra: of this project, that installs it.
        option: what asks for it.

    Raises:
        UsageError: it is not installed (E210).
    """
    try:
        return import_module(module)
    except ImportError as error:
        remedy = f'pip install "quadmatch[{extra}]"'
        raise UsageError(210, option, f"needs {module}, which is not installed", remedy) from error
