"""Match two photographs: `python match.py IMAGE0 IMAGE1 [key=value ...]`; see `--help`."""

from __future__ import annotations

import signal
import sys
import tomllib
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

# Torch takes seconds to import: nothing here does before the options are known to be right.
from matcher.errors import Code, MatcherError, UsageError, lasting
from matcher.options import USAGE, MatchOptions
from matcher.validation.words import describe, key_values, options_from_words

COLLECTIONS = ("pairs=", "pack=", "verify=")
"""How the words of a program for collections begin, also after ``--``; see `matcher.batch.cli`."""
FLAGS = {"--help", "-h", "--version", "--debug"}


class Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that it passes through ordinary handlers."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return lasting(lambda: told(words))


def told(words: list[str]) -> int:
    """`run`, with one line for what goes wrong."""
    debug = "--debug" in (*words[:1], *words[2:])
    try:
        return run(words)
    except MatcherError as error:
        fault = error
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143
    except Exception as error:
        what = f"internal error, {type(error).__name__}: {error}"
        fault = MatcherError(Code.BUG, "match.py", what, "run again with --debug and report it")
        fault.__cause__ = error
    if debug:
        traceback.print_exception(fault)
    print(fault, file=sys.stderr)
    return fault.exit_code


def run(words: list[str]) -> int:
    """The program proper; raises MatcherError where it cannot go on."""
    while words[:1] == ["--debug"]:
        words = words[1:]
    if words[:1] and f"{words[0].removeprefix('--')}=" in COLLECTIONS:
        words = key_values(words)
    if words and words[0].removeprefix("--").startswith(COLLECTIONS):
        from matcher.batch.cli import run_collection

        return run_collection([word for word in words if word != "--debug"], version())
    images, rest = words[:2], words[2:]
    flags = FLAGS & {*words[:1], *rest}
    if flags & {"--help", "-h"} or not words:
        print(USAGE.format(options=describe(MatchOptions)))
        return 0 if words else 2
    if "--version" in flags:
        print(version())
        return 0
    options = options_from_words(MatchOptions, [word for word in rest if word not in FLAGS])
    if len(images) < 2:
        what = f"needs two images, got {images}"
        raise UsageError(Code.MISSING_IMAGE, "match.py", what, "see --help")
    from matcher.pair import match_pair

    match_pair(images[0], images[1], options, version())
    return 0


def version() -> str:
    project = Path(__file__).resolve().with_name("pyproject.toml")
    return tomllib.loads(project.read_text())["project"]["version"]


def stop(number: int, frame: FrameType | None) -> None:
    """First signal: leave in order. A second one takes effect at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    sys.exit(main())
