"""The pose of a photograph in a model: its keypoints are located in it, then PnP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from matcher.batch.retrieval import describe
from matcher.errors import require_extra
from matcher.geometry.cameras import Camera
from matcher.geometry.pixels import to_colmap
from matcher.images.load import LoadedImage, load_image
from matcher.predictor import Predictor
from matcher.tasks.localization.scene import SceneImage

RANKING_SIDE = 320
"""Longer side of the images when those that show the same are chosen by their matches."""
LEAST_INLIERS = 12
MAX_ERROR = 4.0
"""Pixels of an inlier; the refinement trusts those of one pixel."""


@dataclass(frozen=True)
class Location:
    """Where a photograph was taken."""

    pose: np.ndarray
    """(4, 4) takes points of the model to the camera"""
    camera: Camera
    """The one that was given, or with the focal length that was found"""
    inliers: int
    """Points that agree, of `points`"""
    points: int
    images: tuple[str, ...]
    """Images of the model that it was matched with"""

    @property
    def center(self) -> np.ndarray:
        """(3,) of the camera, in the unit of the model"""
        return -self.pose[:3, :3].T @ self.pose[:3, 3]

    @property
    def quaternion(self) -> np.ndarray:
        """(4,) w, x, y, z of the rotation, as COLMAP's files hold it"""
        pycolmap = require_extra("pycolmap", "sfm", "localize")
        return np.roll(pycolmap.Rotation3d(self.pose[:3, :3]).quat, 1)


class Localizer:
    """Localizes photographs in a model.

    Args:
        predictor: of `load_matcher`.
        scene: of `read_scene`.
        most: images of the model that a photograph is matched with in full; where there are more,
            those of most matches in small.
        candidates: so many times `most` images are matched in small; where there are more, those
            that look most like the photograph. 1: descriptors alone choose.
    """

    def __init__(
        self, predictor: Predictor, scene: Sequence[SceneImage], most: int = 5, candidates: int = 2
    ) -> None:
        once = {"refine": "none", "rotate": "off", "zoom": "off"}
        small = replace(predictor.options, max_side=RANKING_SIDE, **once)
        self.predictor, self.scene, self.most = predictor, scene, most
        self._candidates = candidates * most
        self._small = Predictor(predictor.model, small)

    def localize(self, path: str, camera: Camera) -> Location | None:
        """The pose of the photograph in a file; None if it cannot be had.

        Args:
            camera: of the photograph as stored; a focal length that is not known is found.

        Raises:
            MatcherError: as `Predictor.match`.
        """
        nearest = self.nearest(path)
        seen = [self._seen(image, path) for image in nearest]
        pixels, points = (np.concatenate(columns) for columns in zip(*seen, strict=True))
        found = _absolute_pose(pixels, points, camera)
        if found is None:
            return None
        names = tuple(image.name for image in nearest)
        return Location(*found, points=len(points), images=names)

    def nearest(self, path: str) -> list[SceneImage]:
        """The images of the model that show most of what the photograph in a file does.

        Raises:
            MatcherError: as `Predictor.match`.
        """
        query = load_image(path, **self.predictor.reader.reading)
        alike = self._alike(query)
        if len(alike) <= self.most:
            return alike
        pairs = ((image.path, query) for image in alike)
        counts = [len(matches) for matches in self._small.match_many(pairs)]
        return [alike[i] for i in _largest(counts, self.most)]

    def _alike(self, query: LoadedImage) -> list[SceneImage]:
        """Candidates of the model, those that look most like the photograph first."""
        if len(self.scene) <= self._candidates:
            return list(self.scene)
        likeness = self._descriptors @ describe([query], self.predictor)[0]
        return [self.scene[i] for i in _largest(likeness, self._candidates)]

    @cached_property
    def _descriptors(self) -> np.ndarray:
        """(N, C) of the images of the model, made once and only where they are many."""
        return describe([image.path for image in self.scene], self.predictor)

    def _seen(self, image: SceneImage, path: str) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) pixels of the photograph in which points of the model are seen, and the (N, 3)
        points."""
        located = self.predictor.locate(image.path, path, image.keypoints)
        pixels, visible = located.numpy()
        return pixels[visible].astype(np.float64), image.points[visible]


def _largest(values: Sequence[float] | np.ndarray, count: int) -> np.ndarray:
    """Numbers of the largest values, the largest first; of equal ones the first."""
    return np.argsort(-np.asarray(values), kind="stable")[:count]


def _absolute_pose(
    pixels: np.ndarray, points: np.ndarray, camera: Camera
) -> tuple[np.ndarray, Camera, int] | None:
    """The (4, 4) pose, the camera with its focal length, and the number of inliers."""
    pycolmap = require_extra("pycolmap", "sfm", "localize")
    if len(points) < LEAST_INLIERS or camera.size is None:
        return None
    width, height = camera.size
    theirs = pycolmap.Camera(
        model=camera.model, width=width, height=height, params=camera.colmap_params
    )
    unknown = not camera.focal_known
    found = pycolmap.estimate_and_refine_absolute_pose(
        to_colmap(pixels),
        points,
        theirs,
        {"ransac": {"max_error": MAX_ERROR, "random_seed": 0}, "estimate_focal_length": unknown},
        {"refine_focal_length": unknown},
    )
    if found is None or found["num_inliers"] < LEAST_INLIERS:
        return None
    pose = np.vstack([found["cam_from_world"].matrix(), [0, 0, 0, 1]])
    if unknown:
        camera = camera.with_focal(theirs.mean_focal_length())
    return pose, camera, int(found["num_inliers"])
