"""Points of one image from a CSV file, and where they lie in another as one."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from matcher.errors import Code, UsageError
from matcher.files import read_text, write_atomically
from matcher.structures import LocatedPoints
from matcher.validation.words import is_number

HEADER = ("x0", "y0", "x1", "y1", "confidence", "visible")


def read_points(path: Path | str) -> np.ndarray:
    """(N, 2) float32 of the first two columns, x and y; a title above them and lines that begin
    with ``#`` are passed over.

    Raises:
        UsageError: there is no such file (E111), it is no text or holds no point (E112), or a line
            does not begin with two numbers (E113).
    """
    lines = read_text(path, remedy="save x,y a line as UTF-8").splitlines()
    points: list[list[float]] = []
    rows = [(i, line) for i, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    for place, (number, line) in enumerate(rows):
        try:
            cells = next(csv.reader([line], strict=True))
            if place == 0 and not any(map(is_number, cells)):
                continue
            x, y = map(float, cells[:2])
        except (ValueError, csv.Error):
            what = f"line {number} has {line[:40]!r}"
            raise UsageError(Code.FAULTY_LINE, path, what, "write x,y in pixels") from None
        points.append([x, y])
    if not points:
        raise UsageError(Code.UNREADABLE_LIST, path, "holds no point", "write x,y a line")
    return np.array(points, np.float32)


def write_points(path: Path | str, located: LocatedPoints) -> None:
    """Write points of image 0, where they lie in image 1, the confidence and 1 where visible.

    Places in image 1 are empty where nothing is known of them.

    Raises:
        StorageError: it cannot be written (E401).
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    columns = located.points0, located.points1, located.confidence, located.visible
    for (x0, y0), (x1, y1), confidence, visible in zip(*map(_listed, columns), strict=True):
        there = ("", "") if x1 != x1 else (f"{x1:.4f}", f"{y1:.4f}")
        writer.writerow([f"{x0:.9g}", f"{y0:.9g}", *there, f"{confidence:.4f}", int(visible)])
    write_atomically(path, out.getvalue().encode())


def _listed(values: object) -> list:
    return values.tolist()  # pyright: ignore[reportAttributeAccessIssue]
