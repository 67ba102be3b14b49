"""What a benchmark is: pairs of image files with ground truth."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data.real.readers import numbered_lines
from eval.benchmarks.sizing import Sizing
from matcher.errors import Code, UsageError, missing
from matcher.files import sha256_of
from matcher.geometry.pixels import from_colmap
from matcher.geometry.validity import usable_intrinsics, usable_pose

TABLE = "pairs_with_gt.txt"
"""The list of a folder in SuperGlue's format."""


@dataclass(frozen=True)
class EvalPair:
    """Two images and what is known of them. Matrices are in pixels of the stored images."""

    name: str
    """Unique in its benchmark."""
    image0: Path
    image1: Path
    K0: np.ndarray | None = None
    """(3, 3)"""
    K1: np.ndarray | None = None
    T_0to1: np.ndarray | None = None
    """(4, 4) takes camera-0 coordinates to camera-1 coordinates."""
    K_size: tuple[int, int] | None = None
    """Size (width, height) of the images that `K0` and `K1` belong to; None: as stored."""
    homography: np.ndarray | None = None
    """(3, 3) from image 0 to image 1."""
    depth0: Path | None = None
    """``.npy`` file of exact z-depth at the stored size; 0 where unknown."""
    depth1: Path | None = None
    overlap: float | None = None
    """Share of image 0 that image 1 sees, where the benchmark says so."""


@dataclass(frozen=True)
class Benchmark:
    """Pairs, and the size at which they are matched."""

    name: str
    dataset: str
    """Which data: the name of their folder."""
    pairs: tuple[EvalPair, ...]
    sizing: Sizing
    digest: str = ""
    """Of all its pairs, also of those that `limit` leaves out."""
    facts: dict[str, str] = field(default_factory=dict)
    """What else a reader of the results must know."""


def digest_of(pairs: Sequence[EvalPair]) -> str:
    """Changes with the list of pairs, whatever their images hold."""
    return hashlib.sha256("\n".join(pair.name for pair in pairs).encode()).hexdigest()


def content_of(path: Path) -> str:
    """SHA-256 of what a file holds; empty where it cannot be read."""
    try:
        return sha256_of(path) if path.is_file() else ""
    except OSError:
        return ""


def read_pairs_with_gt(root: Path) -> tuple[EvalPair, ...]:
    """A folder in SuperGlue's format: ``pairs_with_gt.txt`` beside ``images/``.

    A line holds ``name0 name1 rot0 rot1 K0(9) K1(9) T_0to1(16)``. The rot columns say how
    SuperGlue's program would turn the images first; here they are matched as stored, for which K
    and T hold.
    """
    return posed_pairs(root / TABLE, root / "images", first=4)


def posed_pairs(
    table: Path,
    images: Path,
    *,
    first: int = 2,
    K_size: tuple[int, int] | None = None,
    colmap: bool = False,
) -> tuple[EvalPair, ...]:
    """Pairs of lines ``name0 name1 ... K0(9) K1(9) T_0to1(16)``, K0 from word `first` on.

    glue-factory's ``pairs_calibrated.txt`` may hold nine numbers of a rotation and three of a
    translation as T. A pair that is listed twice counts once. With `colmap`, K counts as COLMAP
    does.
    """
    pairs = {}
    for number, line in lines_of(table):
        words = line.split()
        count = 30 if first == 2 and len(words) != 36 else 34
        values = numbers(words[first:], count, table, number)
        T = values[18:].reshape(4, 4) if count == 34 else pose_of(values[18:])
        name = " ".join(words[:2])
        with faults_at(f"{table}:{number}"):
            K0, K1 = (usable_intrinsics(K) for K in values[:18].reshape(2, 3, 3))
            T = usable_pose(T)
        if colmap:
            K0, K1 = from_colmap_camera(K0), from_colmap_camera(K1)
        files = images / words[0], images / words[1]
        pairs[name] = EvalPair(name, *files, K0=K0, K1=K1, T_0to1=T, K_size=K_size)
    return tuple(pairs.values())


@contextmanager
def faults_at(where: object) -> Iterator[None]:
    """What is wrong with a matrix as a `UsageError` that says where it stands (E112)."""
    try:
        yield
    except ValueError as error:
        raise UsageError(Code.UNREADABLE_LIST, where, str(error)) from None


def from_colmap_camera(K: np.ndarray) -> np.ndarray:
    """(3, 3) COLMAP's intrinsics in our pixels."""
    out = K.copy()
    out[:2, 2] = from_colmap(K[:2, 2])
    return out


def pose_of(values: np.ndarray) -> np.ndarray:
    """(4, 4) of the nine numbers of a rotation and the three of a translation."""
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = values[:9].reshape(3, 3), values[9:]
    return out


def matrix_of(path: Path, rows: int) -> np.ndarray:
    """(rows, rows) of a text file that holds nothing else."""
    words = " ".join(line for _, line in lines_of(path)).split()
    return numbers(words, rows * rows, path, 1).reshape(rows, rows)


def lines_of(path: Path) -> list[tuple[int, str]]:
    """Lines of a text file with their numbers, but for empty ones and comments; `UsageError` where
    there is no such file (E111) or it is no text (E112)."""
    if not path.is_file():
        raise missing(path, remedy="check root=")
    return list(numbered_lines(path))


def numbers(words: Iterable[str], count: int, path: Path, line: int) -> np.ndarray:
    """`count` finite numbers of a line."""
    try:
        values = np.array([float(word) for word in words])
    except ValueError as error:
        raise UsageError(Code.UNREADABLE_LIST, f"{path}:{line}", str(error)) from None
    if values.size != count or not np.isfinite(values).all():
        what = f"{values.size} numbers, expected {count} finite"
        raise UsageError(Code.UNREADABLE_LIST, f"{path}:{line}", what)
    return values
