"""The frame of every program: errors as one line and an exit code, and streams that last."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps

from matcher.errors import MatcherError, unwritable
from matcher.terminal.streams import lasting_streams


def program(run: Callable[[list[str]], int]) -> Callable[..., int]:
    """Make a function of the words of a command line the `main` of a program.

    Both take the words, by default those of the process, and return the exit code. An error that
    the user can cause is printed as its one line, an interruption is silent. The word ``--debug``
    is taken out and shows the traceback too. Streams are as `lasting`.
    """

    @wraps(run)
    def main(words: Sequence[str] | None = None) -> int:
        given = sys.argv[1:] if words is None else words

        def told() -> int:
            try:
                return run([word for word in given if word != "--debug"])
            except MatcherError as error:
                if "--debug" in given:
                    traceback.print_exc()
                sys.stderr.write(f"{error}\n")
                return error.exit_code
            except KeyboardInterrupt:
                return 130

        return lasting(told)

    return main


def help_told(words: Sequence[str], text: str | None) -> bool:
    """Whether the words ask for help, such as a docstring, which is then written."""
    asked = bool({"--help", "-h"} & set(words))
    if asked:
        sys.stdout.write(f"{(text or '').strip()}\n")
    return asked


def lasting(run: Callable[[], int]) -> int:
    """The exit code of `run`, which goes on whatever becomes of standard output and error.

    Output that is lost, but for want of a reader, is an error (E401).
    """
    with lasting_streams() as output:
        try:
            code = run()
        except SystemExit as leaving:  # of argparse, after its help or a wrong word
            code = leaving.code if isinstance(leaving.code, int) else 0
        output.flush()
        if code == 0 and output.lost is not None:
            fault = unwritable("standard output", output.lost, "all else is done")
            sys.stderr.write(f"{fault}\n")
            return fault.exit_code
        return code
