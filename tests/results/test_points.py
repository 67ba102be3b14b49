"""Files of points: what is read of them, what is refused, what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from matcher.errors import UsageError
from matcher.results.points import read_points, write_points
from matcher.structures import LocatedPoints


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3.5,4\n",
        "x,y\n1,2\n3.5,4\n",
        "\ufeffx,y\r\n1,2\r\n3.5,4\r\n",
        '# image0: "a.jpg"\nx0,y0,x1,y1,score\n1,2,9,9,0.5\n\n3.5,4,9,9,0.5',
    ],
)
def test_the_first_two_columns_are_points(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    assert read_points(tmp_path / "p.csv").tolist() == [[1, 2], [3.5, 4]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1,2\nthree,4\n", "E113 .*p.csv: line 2 has 'three,4'; write x,y in pixels"),
        (b"1O,2\n3,4\n", "E113 .*line 1 has '1O,2'"),
        (b"x,y\n5\n", "E113 .*line 2 has '5'"),
        (b"x,y\n", "E112 .*holds no point"),
        (b"", "E112 .*holds no point"),
        (b"\xff\xfe1", "E112 .*cannot be read as text.*save x,y a line"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "p.csv").write_bytes(data)
    with pytest.raises(UsageError, match=message):
        read_points(tmp_path / "p.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E111 .*p\.csv: no such file"):
        read_points(tmp_path / "p.csv")


def test_places_are_written_and_left_empty_where_unknown(tmp_path: Path) -> None:
    points1 = torch.tensor([[1.25, 2.0], [float("nan"), float("nan")]])
    located = LocatedPoints(torch.tensor([[10.5, 20.0], [3, 4]]), points1, torch.tensor([0.9, 0.0]))
    write_points(tmp_path / "p.csv", located)
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "x0,y0,x1,y1,confidence,visible",
        "10.5,20,1.2500,2.0000,0.9000,1",
        "3,4,,,0.0000,0",
    ]
    assert np.array_equal(read_points(tmp_path / "p.csv"), located.points0.numpy())
