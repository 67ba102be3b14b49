"""Which pairs a collection holds: of a list, or of folders of images.

A pair is a line number; names are kept once, as bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from matcher.batch.folders import (
    Tell,
    both_folders,
    each_with_each,
    read_folder,
    say_nothing,
)
from matcher.batch.image_names import encode_name, plain_name
from matcher.errors import Code, ImageError, UsageError, missing
from matcher.images.opening import open_regular
from matcher.images.suffixes import looks_like_picture

Choice = Callable[[list[str], str, np.ndarray, np.ndarray], np.ndarray]
"""Picks pairs: see `find_pairs`."""
COLUMNS = ("name0", "name1")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")
_NAME = re.compile(rf"""(?P<name>{_QUOTED.pattern}|(?!['"])(?:\\[ '"]|[^ ])+)(?: +|$)""")
_ESCAPED = re.compile(r"""\\([ '"])""")


@dataclass(frozen=True)
class PairList:
    """Pairs of images by number."""

    names: list[str]
    """Each image once, in order of appearance, as it is written first."""
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

    def named(self) -> Iterator[tuple[str, str]]:
        """The names of each pair."""
        return ((self.names[i], self.names[j]) for i, j in self.index.tolist())

    def extended(self, pairs: Iterable[tuple[str, str]]) -> PairList:
        """A list that goes on with more pairs; those that are there keep their numbers."""
        names = list(self.names)
        more = _numbered(pairs, names)
        return PairList(names, np.concatenate([self.index, more]))

    @staticmethod
    def of(pairs: Iterable[tuple[str, str]]) -> PairList:
        """Number the names of `pairs`."""
        names: list[str] = []
        index = _numbered(pairs, names)
        return PairList(names, index)


def _numbered(pairs: Iterable[tuple[str, str]], names: list[str]) -> np.ndarray:
    """(N, 2) int32 of pairs into `names`, to which new images are added; ``./a`` and ``a`` are
    one."""
    numbers = {plain_name(name): i for i, name in enumerate(names)}
    index = array("i")
    for name in chain.from_iterable(pairs):
        number = numbers.setdefault(plain_name(name), len(names))
        if number == len(names):
            names.append(name)
        index.append(number)
    return np.array(index, dtype=np.int32).reshape(-1, 2)


def read_pairs(path: str) -> Iterator[tuple[str, str]]:
    """The pairs of a list, in order; `UsageError` with the line: no such file (E111), not UTF-8 or
    no ordinary file (E112) or not two columns (E113)."""
    parse = _parse_json if path.lower().endswith((".jsonl", ".ndjson")) else _parse_text
    try:
        with open_regular(path) as file:
            for number, raw in enumerate(file, 1):
                line = Line(path, number)
                # Lists that were put together have a mark at the start of each.
                names = parse(_decoded(raw.removeprefix(BYTE_ORDER_MARK), line), line)
                if names:
                    yield _checked(names, line)
    except ImageError as error:
        remedy = "give a list or a folder of images"
        raise UsageError(Code.UNREADABLE_LIST, path, error.what, remedy) from error
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
    if "\t" in text:
        names = text.split("\t")
    else:
        names = [name for name in text.split(" ") if name]
        if len(names) == 2 and names[0][0] not in "'\"#" and names[1][0] not in "'\"":
            return names
    # What looks like a comment or a quote can be the beginning of a name.
    if len(names) == 2 and all(map(looks_like_picture, names)):
        return names
    if not names or names[0].lstrip(" ").startswith("#"):
        return []
    return names if "\t" in text else _quoted_names(text, line)


def _quoted_names(text: str, line: Line) -> list[str]:
    """Names as in a shell, but a quote or a backslash within a name is part of it."""
    names, at = [], 0
    text = text.strip(" ")
    while at < len(text):
        found = _NAME.match(text, at)
        if found is None:
            what = f"has no closing quotation for {text[at]}"
            raise line.fault(what, "quote names with spaces, or use tabs")
        name = found["name"]
        if len(names) == 2 and name.startswith("#"):
            break
        names.append(name[1:-1] if _QUOTED.fullmatch(name) else _ESCAPED.sub(r"\1", name))
        at = found.end()
    return names


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


def chosen_pairs(names: list[str], index: np.ndarray) -> PairList:
    """Pairs of (N, 2) numbers; images in none of them are not in the list."""
    used = np.unique(index)
    return PairList([names[i] for i in used], np.searchsorted(used, index).astype(np.int32))


def find_pairs(
    pairs: str,
    *,
    against: str | None = None,
    select: Literal["exhaustive", "sequential"] = "exhaustive",
    window: int = 5,
    root: str | None = None,
    allow_outside: bool = False,
    warn: Tell = say_nothing,
    choose: Choice | None = None,
) -> tuple[PairList, str]:
    """The pairs that a user names, and the folder that their names are relative to.

    Args:
        pairs: a list or a folder of images; the other options as of `CollectionOptions`.
        allow_outside: follow links of folders that lead out of them.
        warn: hears of what a folder holds and is left out, a line each.
        choose: picks the pairs of images of folders, in place of `select` and `window`; it is given
            their names, the folder these are relative to, and the numbers of the images of the two
            sides.

    Raises:
        UsageError: a missing list or folder (E111), a faulty list (E112 to E114), no pair (E115).
    """
    if root is not None and os.path.isdir(pairs):
        raise UsageError(Code.UNUSABLE_WORD, "root", f"{pairs} is a folder", "give a list with it")
    if against is not None:
        sides = [read_folder(path, outside=allow_outside, warn=warn) for path in (pairs, against)]
        names, ends, folder = both_folders(*sides)
        if choose:
            listed = chosen_pairs(names, choose(names, folder, *ends))
        else:
            listed = PairList(names, each_with_each(*ends))
    elif os.path.isdir(pairs):
        images, folder = read_folder(pairs, outside=allow_outside, warn=warn), pairs
        numbers = np.arange(len(images.names), dtype=np.int32)
        if choose:
            listed = chosen_pairs(images.names, choose(images.names, folder, numbers, numbers))
        else:
            reach = None if select == "exhaustive" else window
            listed = PairList(images.names, images.neighbors(reach))
    else:
        if choose or select == "sequential":
            raise UsageError(Code.UNUSABLE_WORD, pairs, "is no folder to select pairs of images of")
        listed = PairList.of(read_pairs(pairs))
        folder = root or os.path.dirname(pairs) or "."
    alone = len(listed.names) - len(np.unique(listed.index))
    if not len(listed):
        what = f"holds no pair ({len(listed.names)} images)"
        raise UsageError(Code.NO_PAIR, pairs, what, "give a list or a folder of images")
    if alone:
        warn(f"left out  {alone} images that are in no pair: each is alone in its folder")
    return listed, folder
