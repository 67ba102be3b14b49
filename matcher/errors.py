"""Errors that a user can cause, each with a code and the exit status of the programs.

Every message is one line: ``E<code> <subject>: <what>; <what to do>``. The programs print it
without a traceback and leave with `exit_code`.

| exit code | meaning |
|---|---|
| 0 | all done (no match is not a failure) |
| 1 | a bug in this project |
| 2 | wrong usage or configuration, missing file |
| 3 | an input could not be read or did not fit into memory, or a process of ours was killed |
| 4 | storage |
| 5 | checkpoint refused |
"""

from __future__ import annotations

import re
import signal
from enum import IntEnum
from importlib import import_module
from threading import current_thread, main_thread
from typing import Any

_NO_MEMORY = re.compile(
    "out of memory|allocate memory|not enough memory|insufficient memory|bad_alloc|alloc_failed"
    "|(unable|failed|cannot|can't|could not) (to )?allocate",
    re.IGNORECASE,
)


class Code(IntEnum):
    """The number of an error, shown as ``E<code>``, and its meaning in docs/troubleshooting.md."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> Code:
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    BUG = 1, "a bug in this project"

    UNREADABLE_IMAGE = 101, "an image that cannot be opened, or is a folder or a device"
    DAMAGED_IMAGE = 102, "an image that is damaged or cut off"
    LARGE_IMAGE = 103, "an image with too many bytes or pixels"
    INVALID_PIXELS = 104, "pixels, depths or poses that are not finite"
    UNSUPPORTED_IMAGE = 105, "a kind of image that is not supported"
    CORRUPT_SAMPLES = 106, "too many training samples that cannot be read"
    CHANGED_IMAGE = 107, "a file that was replaced while it was used"

    MISSING_FILE = 111, "a file or folder that is not there"
    UNREADABLE_LIST = 112, "a list or table that is not text or lacks entries"
    FAULTY_LINE = 113, "a line of a list or a table that cannot be used"
    REFUSED_NAME = 114, "the name of an image that leads out of its folder or cannot be a name"
    NO_PAIR = 115, "a collection without a pair"
    OUT_OF_MEMORY = 131, "what does not fit into memory, such as a pair, not even alone"

    MISSING_IMAGE = 200, "fewer than two images"
    INVALID_VALUE = 201, "an option with a value that cannot work"
    UNKNOWN_OPTION = 202, "an option that does not exist"
    REFUSED_WORD = 203, "a missing or refused word, or an unknown name"
    UNUSABLE_WORD = 204, "a word or configuration that cannot be used here"
    UNSAFE_VALUE = 205, "a value that would run code or replace an input"
    OTHER_SETTINGS = 206, "a run with other settings in the folder"
    FOLDER_IN_USE = 207, "another process that writes to the folder"
    UNFINISHED_RUN = 208, "a run that is not finished"
    NAME_NOT_EXPORTABLE = 209, "the name of an image that an export cannot hold"
    MISSING_EXTRA = 210, "an optional dependency that is not installed"
    UNUSABLE_METHOD = 211, "a method of the evaluation that cannot be imported or called"
    NOT_RECTIFIED = 222, "two images that cannot be a rectified pair"

    DIVERGED = 301, "a training with too many steps that are not finite"
    DEAD_LOADER = 302, "a process that loads data or matches and died or hangs"

    UNWRITABLE = 401, "a file or folder that cannot be written"
    DAMAGED_RESULT = 402, "a file of results, indices or a run that cannot be read"
    LOCKED = 403, "a file that another process keeps locked"

    DAMAGED_WEIGHTS = 501, "weights that cannot be read"
    WRONG_ARCHITECTURE = 502, "weights that do not fit the model"
    WRONG_HASH = 503, "weights with another SHA-256 than expected"
    WEIGHTS_NOT_FINITE = 504, "weights with NaN or infinity"
    LARGE_WEIGHTS = 505, "weights beyond the limits of size"
    NOT_FETCHED = 506, "weights that cannot be fetched"
    NOT_CACHED = 507, "weights that would have to be fetched while offline"
    INVALID_CONFIGURATION = 508, "weights without a configuration that works"
    FAILED_SELFTEST = 509, "weights that compute something else than when they were saved"


class MatcherError(Exception):
    """Base of all errors that name something the user can change.

    A loader process of PyTorch turns them into a `RuntimeError`; out of one they therefore travel
    as samples (`data.corrupt`).

    Args:
        code: what kind of error; shown as ``E<code>``.
        subject: the file or option at fault.
        what: what is wrong, with the offending value.
        remedy: what to do about it.
    """

    exit_code = 1

    def __init__(self, code: Code, subject: object, what: str, remedy: str = "") -> None:
        self.code = code
        self.subject = str(subject)
        self.what = what
        self.remedy = remedy
        tail = f"; {remedy}" if remedy else ""
        super().__init__(" ".join(f"E{code} {subject}: {what}{tail}".split()))

    def __reduce__(self) -> tuple[type, tuple[Code, str, str, str]]:
        return type(self), (self.code, self.subject, self.what, self.remedy)


class UsageError(MatcherError):
    """A wrong option, configuration value or argument (codes E2xx) or a missing file (E111)."""

    exit_code = 2


class ImageError(MatcherError):
    """An image that is there but cannot be used (codes E101 to E107)."""

    exit_code = 3


class MemoryLimitError(MatcherError):
    """A pair of images that does not fit into the memory of the device, not even alone (E131)."""

    exit_code = 3


class ProcessError(MatcherError):
    """A process of the program that was killed, mostly for want of memory, or hangs (E302)."""

    exit_code = 3


class StorageError(MatcherError):
    """A result that cannot be written or read back (codes E4xx)."""

    exit_code = 4


class CheckpointError(MatcherError):
    """Weights that are refused: wrong format, architecture, checksum or values (codes E5xx)."""

    exit_code = 5


def missing(path: object, what: str = "no such file", remedy: str = "") -> UsageError:
    """The error for a file or folder that is not there (E111)."""
    return UsageError(Code.MISSING_FILE, path, what, remedy)


def unwritable(path: object, error: OSError, remedy: str = "") -> StorageError:
    """The error for a file that cannot be written (E401)."""
    return StorageError(Code.UNWRITABLE, path, f"cannot write: {error.strerror or error}", remedy)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory of any device ran out; only some devices have a type of error for it."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def require_extra(module: str, extra: str, option: str) -> Any:
    """A module that an `extra` of this project installs and `option` asks for, or E210."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        found = import_module(module)
    except ImportError as error:
        what, remedy = (
            f"needs {module}, which is not installed",
            f'pip install "quadmatch[{extra}]"',
        )
        raise UsageError(Code.MISSING_EXTRA, option, what, remedy) from error
    # pycolmap answers SIGTERM itself, and Python never hears of it (findings/colmap_sigterm.sh).
    if handler is not None and current_thread() is main_thread():
        signal.signal(signal.SIGTERM, handler)
    return found
