"""Match two photographs, or a collection: the words of a command line to what they ask for."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

# Torch takes seconds to import: nothing here does before the options are known to be right.
from matcher import __version__
from matcher.errors import Code, MatcherError, UsageError
from matcher.options import USAGE, MatchOptions
from matcher.terminal.program import lasting, tell, warn
from matcher.validation.words import describe, key_values, options_from_words

COLLECTIONS = ("pairs=", "pack=", "verify=")
"""How the words of a program for collections begin, also after ``--``; see `matcher.batch.cli`."""
FLAGS = {"--help", "-h", "--version", "--debug"}


class Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that it passes through ordinary handlers."""


def main(words: Sequence[str], command: str) -> int:
    """Run the program; returns its exit code.

    Args:
        words: of the command line, without the program itself.
        command: what one types to start it, such as ``python match.py``.
    """
    return lasting(lambda: told(list(words), command))


def told(words: list[str], command: str) -> int:
    """`run`, with one line for what goes wrong."""
    debug = "--debug" in (*words[:1], *words[2:])
    try:
        return run(words, command)
    except MatcherError as error:
        fault = error
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143
    except Exception as error:
        what = f"internal error, {type(error).__name__}: {error}"
        remedy = "run again with --debug and report it"
        fault = MatcherError(Code.BUG, command.split()[-1], what, remedy)
        fault.__cause__ = error
    if debug:
        traceback.print_exception(fault)
    warn(str(fault))
    return fault.exit_code


def run(words: list[str], command: str) -> int:
    """The program proper; raises MatcherError where it cannot go on."""
    while words[:1] == ["--debug"]:
        words = words[1:]
    if words[:1] and f"{words[0].removeprefix('--')}=" in COLLECTIONS:
        words = key_values(words)
    if words and words[0].removeprefix("--").startswith(COLLECTIONS):
        from matcher.batch.cli import run_collection

        return run_collection([word for word in words if word != "--debug"], __version__, command)
    images, rest = words[:2], words[2:]
    flags = FLAGS & {*words[:1], *rest}
    if flags & {"--help", "-h"} or not words:
        tell(USAGE.format(command=command, options=describe(MatchOptions)))
        return 0 if words else 2
    if "--version" in flags:
        tell(__version__)
        return 0
    options = options_from_words(MatchOptions, [word for word in rest if word not in FLAGS])
    if len(images) < 2:
        what = f"needs two images, got {images}"
        raise UsageError(Code.MISSING_IMAGE, command.split()[-1], what, "see --help")
    if options.points:
        from matcher.program.points import locate_points

        locate_points(images[0], images[1], options)
        return 0
    from matcher.pair import match_pair

    match_pair(images[0], images[1], options, __version__)
    return 0


def catch_signals() -> None:
    """Leave in order at the first SIGINT or SIGTERM; `main` then returns 130 or 143."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)


def stop(number: int, frame: FrameType | None) -> None:
    """First signal: leave in order. A second one takes effect at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    if torch_is_imported_now():
        # An exception that passes through its native code ends the process with a core dump.
        # Nothing has been written yet.
        os._exit(128 + number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def torch_is_imported_now() -> bool:
    """Whether the import of torch has begun and not ended."""
    module = sys.modules.get("torch")
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
