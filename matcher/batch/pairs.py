"""Which pairs a collection holds: of a list, or of folders of images.

A pair is a line number; names are kept once, as bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from matcher.batch.image_names import encode_name
from matcher.errors import Code, UsageError, missing

COLUMNS = ("name0", "name1")


@dataclass(frozen=True)
class PairList:
    """Pairs of images by number."""

    names: list[str]
    """Each image once, in order of appearance."""
    index: np.ndarray
    """(N, 2) int32 into `names`"""
    first: np.ndarray = field(init=False)
    """(N,) int64 the first pair of the same two images, whichever comes first in it; a pair with
    ``first[i] < i`` is a duplicate."""

    def __post_init__(self) -> None:
        low, high = self.index.min(axis=1), self.index.max(axis=1)
        keys = low.astype(np.int64) * max(1, len(self.names)) + high
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        object.__setattr__(self, "first", first[inverse])

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def sha256(self) -> str:
        """Of names and pairs, in order."""
        digest = hashlib.sha256("\n".join(map(encode_name, self.names)).encode())
        digest.update(self.index.astype("<i4").tobytes())
        return digest.hexdigest()

    @staticmethod
    def of(pairs: Iterable[tuple[str, str]]) -> PairList:
        """Number the names of `pairs`."""
        numbers: dict[str, int] = {}
        index = array("i")
        for name0, name1 in pairs:
            index.append(numbers.setdefault(name0, len(numbers)))
            index.append(numbers.setdefault(name1, len(numbers)))
        return PairList(list(numbers), np.array(index, dtype=np.int32).reshape(-1, 2))


def read_pairs(path: str) -> Iterator[tuple[str, str]]:
    """The pairs of a list, in order; `UsageError` with the line: no such file (E111), not UTF-8
    (E112) or not two columns (E113)."""
    parse = _parse_json if path.lower().endswith((".jsonl", ".ndjson")) else _parse_text
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                line = Line(path, number)
                names = parse(_decoded(raw, line), line)
                if names:
                    yield _checked(names, line)
    except OSError as error:
        raise missing(path, f"cannot read the list: {error.strerror}") from error


class Line(NamedTuple):
    """Where a fault is."""

    path: str
    number: int

    def fault(self, what: str, remedy: str = "", code: Code = Code.FAULTY_LINE) -> UsageError:
        return UsageError(code, self.path, f"line {self.number} {what}", remedy)


def _decoded(raw: bytes, line: Line) -> str:
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 at byte {error.start}"
        raise line.fault(what, "save the list as UTF-8", Code.UNREADABLE_LIST) from error


def _parse_text(text: str, line: Line) -> list[str]:
    start = text.lstrip(" ")
    if not start or start[0] == "#":
        return []
    if "\t" in text:
        return text.split("\t")
    if not any(quote in text for quote in "'\"\\"):
        return [name for name in text.split(" ") if name]
    try:
        return shlex.split(text)
    except ValueError as error:
        what = f"has {str(error).lower()}"
        raise line.fault(what, "quote names as in a shell, or use tabs") from error


def _parse_json(text: str, line: Line) -> list[str]:
    if not text.strip() or text.lstrip()[0] == "#":
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise line.fault(f"is not JSON: {error}") from error
    if isinstance(value, dict):
        value = [value.get(key) for key in COLUMNS]
    names = value if isinstance(value, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise line.fault("does not hold two names", 'write ["a.jpg", "b.jpg"]')
    return [str(name) for name in names]


def _checked(names: list[str], line: Line) -> tuple[str, str]:
    if len(names) != 2 or not all(names):
        what = f"has {len([n for n in names if n])} columns instead of 2"
        raise line.fault(what, "quote names with spaces, or use tabs")
    for name in names:
        if "\0" in name:
            raise line.fault("has a name with a NUL", code=Code.REFUSED_NAME)
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            raise line.fault(f"has {name!r}, no text", code=Code.UNREADABLE_LIST) from error
    return names[0], names[1]


SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"),
    *(".pgm", ".ppm", ".pnm", ".pbm"),
)


def find_pairs(
    pairs: str,
    *,
    against: str | None = None,
    select: Literal["exhaustive", "sequential"] = "exhaustive",
    window: int = 5,
    root: str | None = None,
) -> tuple[PairList, str]:
    """The pairs that a user names, and the folder that their names are relative to.

    Args:
        pairs: a list or a folder of images; the other options as of `CollectionOptions`.

    Raises:
        UsageError: a missing list or folder (E111), a faulty list (E112 to E114), no pair (E115).
    """
    if against is not None:
        listed, folder = folder_by_folder(pairs, against)
    elif os.path.isdir(pairs):
        names = image_names(pairs)
        reach = len(names) if select == "exhaustive" else window
        listed, folder = PairList(names, neighbors(len(names), reach)), pairs
    else:
        listed = PairList.of(read_pairs(pairs))
        folder = root or os.path.dirname(pairs) or "."
    if not len(listed):
        raise UsageError(Code.NO_PAIR, pairs, "holds no pair", "give a list or a folder of images")
    return listed, folder


def image_names(folder: str) -> list[str]:
    """Images in `folder` and below, relative to it with ``/``, in order of their bytes."""
    if not os.path.isdir(folder):
        raise missing(folder, "no such folder")
    names = [
        os.path.relpath(os.path.join(place, file), folder).replace(os.sep, "/")
        for place, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(SUFFIXES) and not file.startswith(".")
    ]
    return sorted(names, key=os.fsencode)


def neighbors(count: int, reach: int) -> np.ndarray:
    """(N, 2) int32 pairs i < j <= i + reach of `count` images."""
    sizes = np.minimum(reach, count - 1 - np.arange(count))
    first = np.repeat(np.arange(count, dtype=np.int32), sizes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    second = first + 1 + (np.arange(len(first)) - starts)
    return np.stack([first, second], axis=1).astype(np.int32)


def folder_by_folder(folder0: str, folder1: str) -> tuple[PairList, str]:
    """Each image of one folder with each of the other, names relative to their common parent,
    and that parent."""
    parent = os.path.commonpath([os.path.abspath(folder0), os.path.abspath(folder1)])
    sides = [
        [os.path.join(os.path.relpath(folder, parent), name) for name in image_names(folder)]
        for folder in (folder0, folder1)
    ]
    number = {name: i for i, name in enumerate(dict.fromkeys(sides[0] + sides[1]))}
    ends = [np.array([number[name] for name in side], np.int32) for side in sides]
    index = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 2)
    return PairList(list(number), index[index[:, 0] != index[:, 1]]), parent
