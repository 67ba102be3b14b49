"""The bundled stereo weights: small, offline, and worth more than a guess."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from data.synthetic.stereo import StereoSceneConfig, StereoScenes
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.predictor import StereoPredictor
from matcher.tasks.stereo.weights import BUNDLED


def test_the_bundled_weights_beat_a_guess_on_an_unseen_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guess that knows the median disparity of this very pair; for occlusion, all or none."""
    monkeypatch.setattr(socket, "socket", None)
    config = StereoSceneConfig(
        sizes=((128, 256),), shares=(1.0,), group=1, pairs=1, texture_seed=1, seed=4242
    )
    pair = StereoScenes(config)[0]
    truth, occluded = pair.disparity[0].numpy(), pair.occluded[0].numpy()
    seen = pair.valid[0].numpy() & ~occluded
    predictor = StereoPredictor(device="cpu")
    assert predictor.model.config == StereoConfig()
    found = predictor.match(pair.left[0, 0].numpy(), pair.right[0, 0].numpy(), check=False)
    error = np.abs(found.disparity - truth)[seen]
    guess = np.abs(np.median(truth[seen]) - truth)[seen]
    assert np.mean(error > 3) < 0.5 * np.mean(guess > 3)
    overlap = (found.occluded & occluded).sum() / (found.occluded | occluded).sum()
    assert overlap > 2 * occluded.mean()


def test_the_bundled_weights_are_small() -> None:
    assert BUNDLED.stat().st_size <= 3_000_000
