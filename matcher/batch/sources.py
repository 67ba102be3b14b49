"""Pairs of the images in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from matcher.batch.pairlist import PairList, read_pairs
from matcher.errors import UsageError

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"),
    *(".pgm", ".ppm", ".pnm", ".pbm"),
)
SELECTIONS = ("exhaustive", "sequential")


def find_pairs(
    pairs: str,
    *,
    against: str | None = None,
    select: str = "exhaustive",
    window: int = 5,
    root: str | None = None,
) -> tuple[PairList, str]:
    """The pairs that a user names, and the folder that their names are relative to.

    Args:
        pairs: a list (see `matcher.batch.pairlist`) or a folder of images.
        against: another folder; each image of `pairs` is matched with each image of it.
        select: within one folder, ``exhaustive`` for all pairs or ``sequential`` for each image
            with the next `window` by name.
        root: folder of the names in a list; by default that of the list.

    Raises:
        UsageError: a missing list or folder (E111), a faulty list (E112 to E114), no pair (E115).
    """
    if against is not None:
        found, folder = (
            folder_by_folder(pairs, against),
            os.path.commonpath([os.path.abspath(pairs), os.path.abspath(against)]),
        )
    elif os.path.isdir(pairs):
        names = image_names(pairs)
        reach = len(names) if select == "exhaustive" else window
        found, folder = PairList(names, neighbours(len(names), reach)), pairs
    else:
        found, folder = PairList.of(read_pairs(pairs)), root or os.path.dirname(pairs) or "."
    if not len(found):
        raise UsageError(115, pairs, "holds no pair", "give a list or a folder of images")
    return found, folder


def image_names(folder: str) -> list[str]:
    """Images in `folder` and below, relative to it with ``/``, in order of their bytes."""
    return sorted(_walk(folder), key=os.fsencode)


def neighbours(count: int, reach: int) -> np.ndarray:
    """(N, 2) int32 pairs i < j <= i + reach of `count` images."""
    sizes = np.minimum(reach, count - 1 - np.arange(count))
    first = np.repeat(np.arange(count, dtype=np.int32), sizes)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    second = first + 1 + (np.arange(len(first)) - starts)
    return np.stack([first, second], axis=1).astype(np.int32)


def folder_by_folder(folder0: str, folder1: str) -> PairList:
    """Each image of one folder with each of the other, names relative to their common parent."""
    parent = os.path.commonpath([os.path.abspath(folder0), os.path.abspath(folder1)])
    names0, names1 = (
        [os.path.join(os.path.relpath(folder, parent), name) for name in image_names(folder)]
        for folder in (folder0, folder1)
    )
    names = list(dict.fromkeys((*names0, *names1)))
    number = {name: i for i, name in enumerate(names)}
    grid = np.meshgrid(
        np.array([number[n] for n in names0], np.int32),
        np.array([number[n] for n in names1], np.int32),
        indexing="ij",
    )
    index = np.stack([each.ravel() for each in grid], axis=1)
    return PairList(names, index[index[:, 0] != index[:, 1]])


def _walk(folder: str) -> Iterator[str]:
    if not os.path.isdir(folder):
        raise UsageError(111, folder, "no such folder")
    for place, folders, files in os.walk(folder):
        folders.sort()
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                yield os.path.relpath(os.path.join(place, file), folder).replace(os.sep, "/")
