"""Photographs turned in the plane: where pixels go, what counts as right, what is printed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval.turns import Counts, main, turned
from matcher.structures import Matches


def test_a_quarter_turn_is_that_of_numpy() -> None:
    image = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    view, matrix = turned(image, 90.0)
    assert np.array_equal(view, np.rot90(image))
    assert np.allclose(matrix @ [8, 0, 1], [0, 0, 1])


def test_a_turned_image_keeps_its_corners() -> None:
    view, matrix = turned(np.full((40, 60, 3), 9, np.uint8), 30.0)
    corners = matrix @ np.array([[0, 59, 0, 59], [0, 0, 39, 39], [1, 1, 1, 1]])
    assert (corners[:2] > -1).all()
    assert (corners[:2] < np.array([[view.shape[1]], [view.shape[0]]])).all()


def test_matches_within_three_pixels_of_the_truth_are_right() -> None:
    shift = np.array([[1, 0, 10], [0, 1, 0], [0, 0, 1.0]])
    points = torch.tensor([[0.0, 0.0], [5.0, 5.0], [7.0, 7.0]])
    moved = points + torch.tensor([[10.0, 0.0], [12.0, 0.0], [14.0, 0.0]])
    counts = Counts()
    counts.add(Matches(points, moved, torch.ones(3)), shift)
    assert (counts.matches, counts.right) == (3, 2)
    counts.add(Matches.empty(), shift)
    assert (counts.matches, counts.right) == (3, 2)


def test_the_program_prints_a_line_an_angle(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", "pairs=1", "angles=[0,90]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["degrees", "0", "90"]
    assert lines[1].split()[3] == "100.0%"
    assert float(lines[2].split()[3].rstrip("%")) < 20
