"""Parts of the benchmarks of cameras that need no matching."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import localization
from benchmarks.distorted_cameras import BENT, RENDERED, SEEN, through_lens
from matcher.geometry.cameras import Camera
from matcher.tasks.localization.localizer import Location

K = np.array([[520.0, 0, 310], [0, 515, 245], [0, 0, 1]])


@pytest.mark.parametrize("model", BENT)
def test_a_lens_sees_nothing_beyond_the_rendered_image_and_much_of_it(model: str) -> None:
    camera, behind = through_lens(model, K)
    assert behind.shape == (SEEN[1], SEEN[0], 2)
    assert behind.min() >= 0
    assert (behind <= np.array(RENDERED[::-1]) - 1).all()
    assert np.ptp(behind[..., 0]) > 0.8 * RENDERED[1]
    pixel = np.array([[17.0, 33.0]])
    ray = np.append(camera.rays(pixel)[0], 1.0)
    np.testing.assert_allclose((K @ ray)[:2], behind[33, 17], atol=1e-3)


def test_errors_of_a_location_are_meters_and_degrees() -> None:
    true = np.eye(4)
    true[:3, 3] = [1, 2, 3]
    found = true.copy()
    found[0, 3] += 0.1
    location = Location(found, Camera.of_matrix(K, (640, 480)), 20, 30, ("a.jpg",))
    assert localization.errors(location, true) == (pytest.approx(0.1), pytest.approx(0, abs=1e-9))
    assert localization.errors(None, true) == (np.inf, np.inf)
