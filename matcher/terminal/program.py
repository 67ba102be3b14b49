"""The frame of every program: errors as one line and an exit code, and streams that last.

A reader of standard output may go away (``| head``), a device may be full, and a daemon may start a
program without any stream: its work goes on.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from io import TextIOWrapper
from typing import Any, TextIO

from matcher.errors import Code, MatcherError, MemoryLimitError, out_of_memory, unwritable

Run = Callable[[list[str]], int]


def program(
    usage: str | Callable[[], str] | None = None, *, needs_words: bool = False
) -> Callable[[Run], Callable[..., int]]:
    """Make a function of the words of a command line the `main` of a program.

    Both take the words, by default those of the process, and return the exit code. An error that
    the user can cause, want of memory too, is printed as its one line, an interruption is silent
    but for what an `InterruptedError` with the number of a signal tells. The word ``--debug`` is
    taken out and shows the traceback too. Streams are as `lasting`.

    Args:
        usage: written, and no more done, where ``--help`` or ``-h`` is among the words; None
            leaves these words to the function.
        needs_words: it is written too where there is no word, which is wrong usage.
    """

    def decorate(run: Run) -> Callable[..., int]:
        answer = run if usage is None else _with_usage(run, usage, needs_words)

        @wraps(run)
        def main(words: Sequence[str] | None = None) -> int:
            given = sys.argv[1:] if words is None else words

            def told() -> int:
                try:
                    return answer([word for word in given if word != "--debug"])
                except (MatcherError, RuntimeError, MemoryError) as error:
                    fault = error if isinstance(error, MatcherError) else _want_of_memory(error)
                    if "--debug" in given:
                        traceback.print_exc()
                    warn(str(fault))
                    return fault.exit_code
                except InterruptedError as error:
                    warn(error.strerror or "interrupted")
                    return 128 + (error.errno or 0)
                except KeyboardInterrupt:
                    return 130

            return lasting(told)

        return main

    return decorate


def _want_of_memory(error: BaseException) -> MatcherError:
    """What to tell where memory ran out; raises `error` where it did not."""
    if not out_of_memory(error):
        raise error
    what, remedy = "does not fit into memory", "take less at a time: smaller sizes or batches"
    return MemoryLimitError(Code.OUT_OF_MEMORY, "what is asked for", what, remedy)


def _with_usage(run: Run, usage: str | Callable[[], str], needs_words: bool) -> Run:
    def answer(words: list[str]) -> int:
        asked = bool({"--help", "-h"} & set(words))
        if not asked and (words or not needs_words):
            return run(words)
        text = usage if isinstance(usage, str) else usage()
        tell(text.strip())
        return 0 if asked else 2

    return answer


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
            warn(str(fault))
            return fault.exit_code
        return code


def tell(*lines: str) -> None:
    """Write lines to standard output."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def warn(*lines: str) -> None:
    """Write lines to standard error."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))


class LastingStream:
    """A text stream that can always be written to. After an error, which is kept, and where there
    is no stream at all, nothing is written."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        self._attempt("flush")

    def isatty(self) -> bool:
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise OSError("no such stream")
        return self.stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _attempt(self, action: str, *values: str) -> None:
        if self.stream is None or self.stream.closed or self.error is not None:
            return
        try:
            getattr(self.stream, action)(*values)
        except OSError as error:
            self.error = error

    @property
    def lost(self) -> OSError | None:
        """The error that lost what somebody wanted to read; not that of a reader who went away."""
        return None if isinstance(self.error, BrokenPipeError) else self.error


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Meanwhile, standard output, which is given, and standard error can always be written to; also
    what is no text, such as names of files. At the end both are flushed."""
    before = sys.stdout, sys.stderr
    after = LastingStream(sys.stdout), LastingStream(sys.stderr)
    handling = [_handle_errors(stream, "backslashreplace") for stream in before]
    for number, stream in enumerate(before, start=1):
        if stream is None:
            _occupy(number)
    sys.stdout, sys.stderr = after  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield after[0]
    finally:
        for stream in after:
            stream.flush()
            if stream.error is not None:
                _discard(stream)
        for stream, errors in zip(before, handling, strict=True):
            _handle_errors(stream, errors)
        sys.stdout, sys.stderr = before


def _handle_errors(stream: TextIO | None, errors: str | None) -> str | None:
    """Set what a stream does with what it cannot encode; returns what it did before."""
    if errors is None or not isinstance(stream, TextIOWrapper) or stream.closed:
        return None
    before = stream.errors
    with suppress(OSError):  # It writes first what waits.
        stream.reconfigure(errors=errors)
    return before


def _occupy(number: int) -> None:
    """Let no file take the place of a closed stream: native libraries write there."""
    with suppress(OSError):
        os.fstat(number)
        return
    handle = os.open(os.devnull, os.O_RDWR)
    if handle != number:
        os.dup2(handle, number)
        os.close(handle)


def _discard(stream: LastingStream) -> None:
    """Let what is still to be written go nowhere, or Python fails with it when it exits."""
    with suppress(OSError, ValueError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, stream.fileno())
        os.close(handle)
