"""What localization needs of a model of COLMAP: its images, and the points that they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from matcher.errors import Code, UsageError, missing
from matcher.geometry.colmap_model import load_model
from matcher.geometry.pixels import from_colmap
from matcher.images.decode import stored_size
from matcher.validation.checked import invalid


class SceneImage(NamedTuple):
    """An image of a model."""

    name: str
    path: str
    size: tuple[int, int]
    """(width, height) of its camera"""
    keypoints: np.ndarray
    """(N, 2) float32 pixels of the keypoints that have a point"""
    points: np.ndarray
    """(N, 3) the points, in the unit of the model"""


def read_scene(model: str, images: str) -> list[SceneImage]:
    """The images of a model, text or binary, that see points.

    Raises:
        UsageError: no model or an image of it is not in `images` (E111), an image has another size
            (E201), the model cannot be read or holds no points (E112), or pycolmap is not
            installed (E210).
    """
    if not any((Path(model) / f"images{suffix}").is_file() for suffix in (".bin", ".txt")):
        raise missing(model, "no model of COLMAP", "give the folder of cameras, images, points3D")
    stored = load_model(model, f"model={model}")
    found = [_scene_image(stored, image, images) for _, image in sorted(stored.images.items())]
    seen = [image for image in found if len(image.points)]
    if not seen:
        remedy = "triangulate its points first (colmap point_triangulator)"
        raise UsageError(Code.UNREADABLE_LIST, model, "holds no points", remedy)
    for image in seen:
        _require_image(image)
    return seen


def _require_image(image: SceneImage) -> None:
    """Refuse an image that is not there, or has another size than in the model."""
    size = stored_size(image.path)
    if not Path(image.path).is_file():
        raise missing(image.path, remedy="images= is the folder of the images of the model")
    if size not in (None, image.size):
        found = f"{image.name} of {size}"
        raise invalid("images", found, f"the size that it has in the model, {image.size}")


def _scene_image(stored: Any, image: Any, images: str) -> SceneImage:
    observed = image.get_observation_points2D() if image.has_pose else []
    keypoints = np.array([point.xy for point in observed], np.float64).reshape(-1, 2)
    points = [stored.points3D[point.point3D_id].xyz for point in observed]
    keypoints = from_colmap(keypoints).astype(np.float32)
    path = str(Path(images) / image.name)
    camera = stored.cameras[image.camera_id]
    size = camera.width, camera.height
    return SceneImage(image.name, path, size, keypoints, np.array(points).reshape(-1, 3))
