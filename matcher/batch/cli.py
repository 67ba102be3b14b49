"""`match.py pairs=...`, `pack=RUN` and `verify=RUN`: words to options to what they ask for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matcher.batch.options import PATHS, CollectionOptions
from matcher.errors import Code, UsageError
from matcher.options import build_options

USAGE = """\
usage: python match.py pairs=LIST_OR_FOLDER [output=RUN] [key=value ...] [--debug]
       python match.py pack=RUN       all results of a finished run in one file
       python match.py verify=RUN     check every file of a run

Matches a whole collection. Results go to a folder in small files that are complete or absent;
run the same words again to go on after an interruption.

examples:
  python match.py pairs=list.txt root=photos output=run
  python match.py pairs=photos select=sequential window=5 output=run export=colmap
  python match.py pairs=queries against=database output=run export=hloc

options and their defaults:
{options}

exit codes: 0 done (also with no match), 2 wrong usage, missing files or another run in the
folder, 3 done but some pairs failed, 4 storage, 5 weights refused, 130 or 143 interrupted
"""
ReadValues = Callable[[Sequence[str], str, type, Sequence[str]], Mapping[str, Any]]


def run_collection(
    words: Sequence[str],
    read_values: ReadValues,
    describe: Callable[[str], str],
    version: str,
) -> int:
    """Do what `words` ask for.

    Args:
        words: ``pairs=...``, ``pack=...`` or ``verify=...`` first.
        read_values: composes the values of options from words; see match.py.
        describe: the options of a config and their defaults, for the usage.
        version: of the program.

    Returns:
        The exit code.

    Raises:
        MatcherError: it cannot go on.
    """
    if {"--help", "-h"} & set(words):
        tell(USAGE.format(options=describe("pairs")))
        return 0
    command, _, folder = words[0].partition("=")
    if command == "pairs":
        options = build_options(
            CollectionOptions, read_values(words, "pairs", CollectionOptions, PATHS)
        )
        from matcher.batch.collection import match_collection

        return match_collection(options, version=version, tell=tell, warn=warn)
    if len(words) > 1:
        raise UsageError(
            Code.UNUSABLE_WORD, words[1], f"is not an option of {command}", "remove it"
        )
    from matcher.batch.collection import pack_folder, verify_folder

    return (
        pack_folder(Path(folder), tell)
        if command == "pack"
        else verify_folder(Path(folder), tell, warn)
    )


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def warn(line: str) -> None:
    sys.stderr.write(f"{line}\n")
