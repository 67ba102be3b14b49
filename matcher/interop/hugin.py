"""Matches as control points of a panorama project for Hugin and its tools (``.pto``).

Hugin counts pixels from the center of the top-left one, as we do. All images begin straight ahead;
``autooptimiser -n`` turns them, and where no focal length is known finds one for each size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from matcher.files import write_atomically
from matcher.validation.checked import invalid

FIELD_OF_VIEW = 50.0
"""Degrees across an image where its focal length is not known, as Hugin guesses."""
ANGLES = ("r", "p", "y")
"""Roll, pitch and yaw of every image but the first, which holds the panorama."""
UNFIT = ('"', "\n", "\r")


class Picture(NamedTuple):
    """An image of a panorama."""

    path: str
    width: int
    height: int
    focal: float | None = None
    """Pixels; None: not known"""

    @property
    def field_of_view(self) -> float:
        """Degrees across."""
        if self.focal is None:
            return FIELD_OF_VIEW
        return math.degrees(2 * math.atan(self.width / 2 / self.focal))


class Tie(NamedTuple):
    """Matches of two pictures, by number."""

    first: int
    second: int
    keypoints0: np.ndarray
    """(N, 2) in our pixels; keypoints1 likewise"""
    keypoints1: np.ndarray


def write_hugin(path: str | Path, pictures: Sequence[Picture], ties: Iterable[Tie]) -> None:
    """Write a project; ``autooptimiser -n`` and ``hugin`` take it.

    Raises:
        UsageError: the name of an image that a project cannot hold (E201).
        StorageError: it cannot be written (E401).
    """
    lines = ['p f2 w3000 h1500 v360 n"TIFF_m"', "m i0"]
    optimized = [f"{name}{number}" for number in range(1, len(pictures)) for name in ANGLES]
    same_lens: dict[tuple[int, int], int] = {}
    for number, picture in enumerate(pictures):
        if any(sign in picture.path for sign in UNFIT):
            raise invalid("export", picture.path, "names without quotes and line breaks for Hugin")
        view = f"v{picture.field_of_view:.9g}"
        if picture.focal is None:
            first = same_lens.setdefault((picture.width, picture.height), number)
            if first == number:
                optimized.append(f"v{number}")
            else:
                view = f"v={first}"
        size = f"w{picture.width} h{picture.height}"
        lines.append(f'i {size} f0 {view} r0 p0 y0 a0 b0 c0 d0 e0 g0 t0 n"{picture.path}"')
    lines += [*(f"v {name}" for name in optimized), "v"]
    for tie in ties:
        for (x, y), (X, Y) in zip(tie.keypoints0.tolist(), tie.keypoints1.tolist(), strict=True):
            ends = f"n{tie.first} N{tie.second}"
            lines.append(f"c {ends} x{x:.9g} y{y:.9g} X{X:.9g} Y{Y:.9g} t0")
    write_atomically(path, ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
