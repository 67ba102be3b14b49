"""From images to cameras: match.py on a collection, COLMAP's mapping, poses that are known."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import match
from benchmarks.reconstruction import aligned_errors
from data.synthetic.textures import procedural_textures

ROOT = Path(__file__).resolve().parents[2]
STRECHA = ROOT.parent / "shared" / "eval" / "strecha"
WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
K = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
VIEWS = 5


def surfaces() -> list[tuple[np.ndarray, np.ndarray]]:
    """(3, 3) columns u, v and corner in meters, far ones first, and the texture of each: a wall, a
    floor, and four boards before them at different depths, turned to the side."""
    shapes = [
        [(14, 0, 0), (0, 7, 0), (-7, -5.5, 7)],
        [(14, 0, 0), (0, 0, -6), (-7, 1.5, 7)],
        [(2.2, 0, 0.9), (0, 2.2, 0), (-2.6, -0.9, 4.6)],
        [(2.0, 0, -0.8), (0, 2.6, 0), (0.4, -1.3, 5.2)],
        [(1.4, 0, -1.2), (0, 1.1, 0), (-1.0, 0.1, 4.3)],
        [(0.9, 0, 0.9), (0, 1.2, 0), (0.3, -0.1, 3.4)],
    ]
    kinds = procedural_textures(16, 512, seed=3)
    return [
        (np.array(shape, float).T, kinds[number])
        for shape, number in zip(shapes, (0, 1, 10, 9, 10, 9), strict=True)
    ]


def view(center: np.ndarray, angle: float) -> np.ndarray:
    """(H, W) uint8 from `center`, the camera turned to the right by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    world_to_camera = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    image = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
    finer = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    for shape, texture in surfaces():
        to_texels = np.diag([1 / texture.shape[1], 1 / texture.shape[0], 1])
        H = finer @ K @ world_to_camera @ (shape - np.outer(center, (0, 0, 1))) @ to_texels
        cv2.warpPerspective(
            texture, H, image.shape[::-1], image, cv2.INTER_AREA, cv2.BORDER_TRANSPARENT
        )
    return cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


def write_views(folder: Path) -> dict[str, np.ndarray]:
    """Images on an arc around the boards; their camera centers by name."""
    folder.mkdir()
    centers = {}
    for i, angle in enumerate(np.linspace(-0.22, 0.22, VIEWS)):
        center = np.array([-5 * np.sin(angle), 0.2 * (i % 2), 5 - 5 * np.cos(angle)])
        Image.fromarray(view(center, angle)).save(folder / f"{i}.png")
        centers[f"{i}.png"] = center
    return centers


MAP = """
import json, sys
import pycolmap
options = pycolmap.IncrementalPipelineOptions()
options.ba_refine_focal_length = options.ba_refine_extra_params = False  # K is exact.
models = pycolmap.incremental_mapping(*sys.argv[1:], options)
model = max(models.values(), key=lambda model: model.num_reg_images())
centers = {image.name: image.projection_center().tolist() for image in model.images.values()}
print(json.dumps([centers, model.compute_mean_reprojection_error(), model.num_points3D()]))
"""


def test_a_rendered_scene_is_reconstructed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    centers = write_views(tmp_path / "img")
    camera = f"K=[{FOCAL},{FOCAL},{(WIDTH - 1) / 2},{(HEIGHT - 1) / 2}]"
    monkeypatch.chdir(tmp_path)
    assert match.main(["pairs=img", "output=run", "export=colmap", camera]) == 0
    (tmp_path / "sparse").mkdir()
    words = [sys.executable, "-c", MAP, "run/colmap/database.db", "img", "sparse"]
    done = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True)
    found, reprojection, points = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found) == sorted(centers)
    errors = aligned_errors(
        np.array([found[name] for name in centers]), np.array(list(centers.values()))
    )
    assert errors.max() < 0.03  # of an arc of 2.2 m, in images of 320 x 240
    assert reprojection < 1
    assert points > 500


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fountain_is_reconstructed_from_our_matches(tmp_path: Path) -> None:
    if not STRECHA.is_dir():
        pytest.skip("the photographs of fountain-P11 are not on this machine")
    words = [str(STRECHA), str(tmp_path / "run"), "scenes=fountain-P11", "merge=1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reconstruction", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = re.search(r"\| 11 of 11 \|.* ([\d.]+) px \| ([\d.]+) cm \| [\d.]+ cm", done.stdout)
    assert row is not None, done.stdout
    assert float(row[1]) < 1.5
    assert float(row[2]) < 10
