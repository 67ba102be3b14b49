"""Folders of images: what they hold, what of it is left out and why, in the order people mean."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from matcher.errors import missing
from matcher.images.suffixes import is_read, looks_like_picture

Tell = Callable[[str], None]
SHOWN = 3
_DIGITS = re.compile("([0-9]+)")


def say_nothing(line: str) -> None:
    """A `Tell` for those who do not listen."""


@dataclass(frozen=True)
class Folder:
    """The images of a folder and those below it."""

    path: str
    names: list[str]
    """Relative to it with ``/``, in natural order, those of a folder together."""

    def sequences(self) -> list[range]:
        """The images of each folder, by number."""
        out: list[range] = []
        start = 0
        for i in range(1, len(self.names) + 1):
            here = os.path.dirname(self.names[start]) if self.names else ""
            if i == len(self.names) or os.path.dirname(self.names[i]) != here:
                out.append(range(start, i))
                start = i
        return out

    def neighbors(self, reach: int | None) -> np.ndarray:
        """(N, 2) int32 pairs of images: all, or in each folder those within `reach`."""
        if reach is None:
            return neighbors(len(self.names), len(self.names))
        parts = [neighbors(len(part), reach) + part.start for part in self.sequences()]
        return np.concatenate([np.zeros((0, 2), np.int32), *parts]).astype(np.int32)


def read_folder(path: str, *, outside: bool = False, warn: Tell = say_nothing) -> Folder:
    """List the images in a folder and below, hidden ones and those in hidden folders left out.

    Linked folders are followed once if `outside`, else those that lead out of `path` are told;
    those that lead to a folder of it hold nothing new. `warn` hears of all that is left out.

    Raises:
        UsageError: there is no such folder (E111).
    """
    if not os.path.isdir(path):
        raise missing(path, "no such folder")
    names: list[str] = []
    left_out: list[str] = []
    for place, file in _files(path, outside, warn):
        if file.startswith("."):
            continue
        if is_read(file):
            name = os.path.relpath(os.path.join(place, file), path).replace(os.sep, "/")
            names.append(name)
        elif looks_like_picture(file):
            left_out.append(file)
    kinds = Counter(f".{file.rpartition('.')[2]}" for file in left_out)
    if kinds:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        shown = ", ".join(sorted(left_out)[:SHOWN])
        warn(f"left out  {found} in {path}, such as {shown}: not read here; convert them to JPEG")
    return Folder(path, sorted(names, key=natural))


def natural(name: str) -> tuple[list[tuple[str | int, ...]], bytes, tuple[str | int, ...], bytes]:
    """Sorting key of a name: folder by folder, numbers in it by their value."""
    folder, _, file = name.rpartition("/")
    return (
        [_pieces(part) for part in folder.split("/")],
        os.fsencode(folder),
        _pieces(file),
        os.fsencode(file),
    )


def _pieces(text: str) -> tuple[str | int, ...]:
    """Text and numbers in turn, text first."""
    return tuple(int(p) if i % 2 else p for i, p in enumerate(_DIGITS.split(text)))


def neighbors(count: int, reach: int) -> np.ndarray:
    """(N, 2) int32 pairs i < j <= i + reach of `count` images."""
    sizes = np.minimum(reach, count - 1 - np.arange(count))
    first = np.repeat(np.arange(count, dtype=np.int32), sizes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    second = first + 1 + (np.arange(len(first)) - starts)
    return np.stack([first, second], axis=1).astype(np.int32)


def both_folders(
    folder0: Folder, folder1: Folder
) -> tuple[list[str], tuple[np.ndarray, np.ndarray], str]:
    """Names of the images of two folders relative to their common parent, the numbers of the images
    of each, and that parent."""
    paths = [os.path.abspath(folder.path) for folder in (folder0, folder1)]
    parent = os.path.commonpath(paths)
    sides = [
        [os.path.normpath(os.path.join(os.path.relpath(path, parent), name)) for name in f.names]
        for path, f in zip(paths, (folder0, folder1), strict=True)
    ]
    number = {name: i for i, name in enumerate(dict.fromkeys(sides[0] + sides[1]))}
    first, second = (np.array([number[name] for name in side], np.int32) for side in sides)
    return list(number), (first, second), parent


def each_with_each(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 2) int32 pairs of images by number, none with itself."""
    index = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    return index[index[:, 0] != index[:, 1]]


def _files(path: str, outside: bool, warn: Tell) -> Iterator[tuple[str, str]]:
    """(folder, name) of every file in a folder and below."""

    def unreadable(error: OSError) -> None:
        warn(f"left out  {error.filename}: cannot read the folder: {error.strerror}")

    top = os.path.realpath(path)
    seen, places = {top}, [path]
    while places:
        for place, folders, files in os.walk(places.pop(0), onerror=unreadable):
            yield from ((place, file) for file in files)
            # Cameras, viewers and notebooks keep small copies in hidden ones.
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            for folder in sorted(folders):
                below = os.path.join(place, folder)
                real = os.path.realpath(below)
                link = os.path.islink(below)
                if real in seen or (link and real.startswith(os.path.join(top, ""))):
                    folders.remove(folder)
                elif link and not outside:
                    warn(
                        f"left out  {below}: leads out of {path}; allow_outside_root=true takes it"
                    )
                else:
                    seen.add(real)
                    places += [below] if link else []
