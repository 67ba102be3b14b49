"""The command `quadmatch`: the program that its first word names, with the words that follow."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from matcher.errors import Code, UsageError
from matcher.program import match
from matcher.terminal.program import program

COMMANDS = """\

commands, each with --help:
  quadmatch IMAGE0 IMAGE1 ...         as `quadmatch match`, which all of the above is about
  quadmatch pairs LIST_OR_FOLDER ...  a whole collection; `pack RUN` and `verify RUN` after it
  quadmatch export KIND LIST_OR_FOLDER ...
                                      the same and its results as KIND: colmap, colmap_text, gdal,
                                      hloc, hugin, pack or verdicts
  quadmatch export onnx [output=FILE] the matcher itself, for ONNX Runtime and OpenVINO
  quadmatch data NAME                 published benchmarks: what to fetch, checks, layout
  quadmatch web                       a page in the browser
  quadmatch stereo LEFT RIGHT ...     disparity of a rectified pair
  quadmatch classify IMAGE ...        classes of an image
  quadmatch localize QUERY model=FOLDER images=FOLDER ...
                                      where photographs were taken, in a model of COLMAP
  quadmatch weights COMMAND ...       convert weights, or tell what they hold
  quadmatch selftest [WEIGHTS]        do weights compute what they did when they were saved?
"""
MODULES = {
    "data": "matcher.program.published_data",
    "classify": "matcher.tasks.classification.__main__",
    "localize": "matcher.tasks.localization.__main__",
    "stereo": "matcher.tasks.stereo.__main__",
    "web": "matcher.web.__main__",
    "weights": "matcher.weights.__main__",
}
"""By name: each loads what it needs when it is asked for."""
OF_A_CHECKOUT = {"eval": "python -m eval", "train": "python train.py"}


def main(words: Sequence[str] | None = None) -> int:
    """Run the program that the words, by default those of the process, ask for.

    Returns:
        Its exit code.
    """
    words = list(sys.argv[1:] if words is None else words)
    first, rest = words[:1], words[1:]
    if first == ["selftest"]:
        first, rest = ["weights"], ["selftest", *(rest or ["compact"])]
    if words[:2] in (["export", "onnx"], ["export", "torch"]):
        return import_module("matcher.program.export_graph").main(words[1:])
    if first and first[0] in MODULES:
        return import_module(MODULES[first[0]]).main(rest)
    if first and first[0] in OF_A_CHECKOUT:
        return refuse(words)
    code = match.main(match_words(words), "quadmatch")
    if not words or words in (["--help"], ["-h"]):
        sys.stdout.write(COMMANDS)
    return code


def start() -> int:
    """`main` with the words of the process, which a signal ends in order."""
    if sys.argv[1:2] and sys.argv[1] not in MODULES:
        match.catch_signals()
    return main()


def match_words(words: list[str]) -> list[str]:
    """Words of the command as those of `match.main`: ``pairs photos`` as ``pairs=photos``."""
    if words[:1] == ["match"]:
        return words[1:]
    if words[:1] == ["export"]:
        if len(words) < 3 or {"--help", "-h"} & set(words):
            return ["pairs=", "--help"]
        return [f"pairs={words[2]}", *words[3:], f"export={words[1]}"]
    if words[:1] and words[0] in ("pairs", "pack", "verify"):
        value, rest = (words[1], words[2:]) if len(words) > 1 else ("--help", [])
        return (
            [f"{words[0]}=", "--help"]
            if value in ("--help", "-h")
            else [
                f"{words[0]}={value}",
                *rest,
            ]
        )
    return words


@program()
def refuse(words: list[str]) -> int:
    """Tell of a program that no wheel holds."""
    how = OF_A_CHECKOUT[words[0]]
    what = "belongs to a checkout of the project, not to what pip installs"
    raise UsageError(Code.REFUSED_WORD, words[0], what, f"run `{how}` in a checkout")
