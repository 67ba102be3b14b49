"""Collections, `pairs=...`, `pack=RUN` and `verify=RUN`: words to options to what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matcher.batch.options import CollectionOptions
from matcher.errors import Code, UsageError
from matcher.terminal.program import tell, warn
from matcher.validation.words import describe, key_values, options_from_words

USAGE = """\
usage: {command} pairs=LIST_OR_FOLDER [output=RUN] [key=value ...] [--debug]
       {command} pack=RUN       all results of a finished run in one file
       {command} verify=RUN     check every file of a run

Matches a whole collection. Results go to a folder in small files that are complete or absent;
run the same words again to go on after an interruption.

examples:
  {command} pairs=list.txt root=photos output=run
  {command} pairs=photos select=sequential window=5 output=run export=colmap
  {command} pairs=queries against=database output=run export=hloc

options and their defaults:
{options}

exit codes: 0 done (also with no match), 2 wrong usage, missing files or another run in the
folder, 3 done but some pairs failed, 4 storage, 5 weights refused, 130 or 143 interrupted
"""


def run_collection(words: Sequence[str], version: str, command: str) -> int:
    """Do what `words` ask for, ``pairs=...``, ``pack=...`` or ``verify=...`` first; returns the
    exit code. `command` is what one types to start the program."""
    if {"--help", "-h"} & set(words):
        tell(USAGE.format(command=command, options=describe(CollectionOptions)))
        return 0
    words = key_values(words)
    job, _, folder = words[0].partition("=")
    if job == "pairs":
        options = options_from_words(CollectionOptions, words)
        from matcher.batch.collection import match_collection

        return match_collection(options, version=version, tell=tell, warn=warn)
    if len(words) > 1:
        what = f"is not an option of {job}"
        raise UsageError(Code.UNUSABLE_WORD, words[1], what, "remove it")
    from matcher.batch.collection import pack_folder, verify_folder

    if job == "pack":
        return pack_folder(Path(folder), tell)
    return verify_folder(Path(folder), tell, warn)
