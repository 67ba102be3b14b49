"""What the program says of a pair: the lines about its pose."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from matcher.options import MatchOptions
from matcher.pair import fitted, lines_of_record
from matcher.results.record import ImageRecord, MatchRecord
from matcher.structures import Matches

IMAGE = ImageRecord("a.jpg", 640, 480)


def lines(kind: str, **options: object) -> list[str]:
    """Of 200 matches of a plane, of a camera that turned, or of a scene with depth."""
    rng = np.random.default_rng(0)
    points = np.c_[rng.uniform(-2, 2, 200), rng.uniform(-1.5, 1.5, 200), rng.uniform(4, 8, 200)]
    if kind == "plane":
        points[:, 2] = 5 + 0.1 * points[:, 0]
    turn = cv2.Rodrigues(np.array([0.05, 0.2, 0.03]))[0]
    step = np.zeros(3) if kind == "rotation" else np.array([-1.0, 0.1, 0.1])
    seen = [500 * p[:, :2] / p[:, 2:] + (320, 240) for p in (points, points @ turn.T + step)]
    noisy = [torch.from_numpy(p + rng.normal(0, 0.1, p.shape)).float() for p in seen]
    record = MatchRecord(Matches(*noisy, torch.ones(200)), IMAGE, IMAGE)
    asked = MatchOptions(geometry="pose", **options)  # pyright: ignore[reportArgumentType]
    return list(lines_of_record(fitted(record, asked)))


@pytest.mark.parametrize("kind", ["plane", "rotation"])
def test_a_focal_length_that_a_plane_or_a_rotation_cannot_tell_is_uncertain(kind: str) -> None:
    found = lines(kind)
    assert any("translation unknown" in line for line in found)
    focals = [line for line in found if line.startswith("focal ")]
    assert len(focals) == 2
    assert all("uncertain, as is the rotation" in line for line in focals)
    assert not any(line.startswith("focal ") for line in lines(kind, K=(500, 500, 320, 240)))


def test_a_focal_length_that_a_scene_tells_is_found() -> None:
    focals = [line for line in lines("scene") if line.startswith("focal ")]
    assert all(line.endswith("pixels, found from the matches") for line in focals)
    assert float(focals[0].split()[4]) == pytest.approx(500, rel=0.05)
