"""Matches of backbones alone: mutual nearest cells, and how many lie near epipolar lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval.backbone_matches import centers, mutual_cells, near_line
from eval.benchmarks.folder import EvalPair
from matcher.drawing.matches import write_picture
from tests.helpers.shifted_images import texture

K = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
SIDEWAYS = np.array([[1.0, 0, 0, -1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def positions(image: Tensor) -> Tensor:
    """Features that tell the row and the column of a cell."""
    h, w = (side // 8 for side in image.shape[-2:])
    row, column = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")
    return torch.stack([row.cos(), row.sin(), column.cos(), column.sin()])[None]


def pair(folder: Path) -> EvalPair:
    picture = np.repeat((texture(0, (480, 640)) * 255).astype(np.uint8)[..., None], 3, axis=2)
    for name in ("0.png", "1.png"):
        write_picture(folder / name, picture)
    return EvalPair("p", folder / "0.png", folder / "1.png", K0=K, K1=K, T_0to1=SIDEWAYS)


def test_cells_are_each_others_nearest_and_the_most_alike_are_kept() -> None:
    features0 = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.2]]).T.view(1, 2, 1, 3)
    features1 = torch.tensor([[1.0, 0.0], [0.1, 1.0]]).T.view(1, 2, 1, 2)
    found = [index.tolist() for index in mutual_cells(features0, features1, 5)]
    assert found == [[0, 1], [0, 1]]
    assert [index.tolist() for index in mutual_cells(features0, features1, 1)] == [[0], [0]]


def test_centers_of_cells_are_pixels_x_first() -> None:
    assert centers(torch.tensor([0, 5]), 4, 3.5).tolist() == [[3.5, 3.5], [11.5, 11.5]]


def test_cells_of_one_row_lie_on_the_lines_of_a_sideways_move(tmp_path: Path) -> None:
    found, chance = near_line(pair(tmp_path), positions, 0.0, 500)
    assert found == 1.0
    assert chance < 0.2
