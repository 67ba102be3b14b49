"""Cameras: lenses and intrinsics, rigid transforms and where they take points.

Poses take camera-0 coordinates to camera-1 coordinates; pixels as in `matcher.geometry.pixels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from matcher.errors import UsageError
from matcher.geometry.lenses import LENSES, rays_of
from matcher.geometry.pixels import from_colmap, original_to_network, to_colmap
from matcher.geometry.validity import usable_intrinsics
from matcher.validation.checked import invalid

Size = tuple[int, int]
"""(width, height) in pixels."""
GUESSED_FOCAL = 1.2
"""Focal length of a camera of which nothing is known, in longer sides, as COLMAP guesses it."""


@dataclass(frozen=True)
class Camera:
    """A camera of one of COLMAP's models.

    Raises:
        UsageError: a model that is not known, or parameters that it cannot have (E201).
    """

    model: str
    """A name of `matcher.geometry.lenses.LENSES`, such as ``OPENCV``"""
    params: tuple[float, ...]
    """As COLMAP orders them, but the center of the top-left pixel is (0, 0)"""
    size: Size | None = None
    """Of the image; None: not known"""
    focal_known: bool = True
    """False: the focal length is a guess, or was found from matches"""

    def __post_init__(self) -> None:
        if self.model not in LENSES:
            raise invalid("camera", self.model, f"a model of {', '.join(LENSES)}")
        lens = LENSES[self.model]
        count = lens.focals + 2 + lens.parameters
        if len(self.params) != count or not np.isfinite(self.params).all():
            raise invalid(f"camera {self.model}", list(self.params), f"{count} finite numbers")
        try:
            usable_intrinsics(self.K)
        except ValueError as error:
            raise self._refused(str(error)) from None
        if self.size is not None and min(self.size) < 1:
            raise self._refused(f"an image of {self.size[0]} x {self.size[1]} pixels")

    def _refused(self, what: str) -> UsageError:
        return invalid(f"camera {self.model}", list(self.params), f"a camera; {what}")

    @staticmethod
    def of_matrix(K: Sequence[Sequence[float]] | np.ndarray, size: Size | None = None) -> Camera:
        """A pinhole with the (3, 3) matrix; a skew is refused (E201)."""
        K = np.asarray(K, dtype=np.float64)
        if K[0, 1]:
            raise invalid("K", K.tolist(), "no skew")
        return Camera("PINHOLE", tuple(K[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()), size)

    @staticmethod
    def of_colmap(model: str, params: Sequence[float], size: Size) -> Camera:
        """A camera of a file of COLMAP, which counts pixels from the outer corner of the first."""
        camera = Camera(model, tuple(map(float, params)), size)
        return camera.with_center(from_colmap(camera.center))

    @staticmethod
    def guessed(size: Size) -> Camera:
        """A camera of which nothing is known but the size of its image, as COLMAP guesses it."""
        center = ((size[0] - 1) / 2, (size[1] - 1) / 2)
        return Camera("SIMPLE_RADIAL", (GUESSED_FOCAL * max(size), *center, 0.0), size, False)

    @property
    def focal(self) -> np.ndarray:
        """(2,) fx and fy"""
        return np.array(self.params[: LENSES[self.model].focals] * 2)[:2]

    @property
    def center(self) -> np.ndarray:
        """(2,) principal point"""
        first = LENSES[self.model].focals
        return np.array(self.params[first : first + 2])

    @property
    def K(self) -> np.ndarray:  # noqa: N802
        """(3, 3) float64: what the camera would be without its distortion."""
        (fx, fy), (cx, cy) = self.focal, self.center
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])

    @property
    def distorted(self) -> bool:
        """Whether straight lines may look bent."""
        return self.model not in ("SIMPLE_PINHOLE", "PINHOLE")

    @property
    def colmap_params(self) -> list[float]:
        """Parameters as files of COLMAP hold them."""
        return list(self.with_center(to_colmap(self.center)).params)

    def rays(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) pixels as rays (x, y, 1) from the camera; NaN where there is none in front of it,
        or none of which the lens makes such a pixel."""
        lens = LENSES[self.model]
        bent = np.array(self.params[lens.focals + 2 :])
        points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        return rays_of(lens, (points - self.center) / self.focal, bent)

    def undistorted(self, points: np.ndarray) -> np.ndarray:
        """Where a pinhole with `K` has the (N, 2) pixels; NaN as of `rays`."""
        if not self.distorted:
            return np.asarray(points, dtype=np.float64)
        return self.rays(points) * self.focal + self.center

    def resized(self, size: Size) -> Camera:
        """The camera of the image at another size; one without a size is of any.

        Raises:
            UsageError: an image of another shape (E201).
        """
        if self.size is None or size == self.size:
            return replace(self, size=size)
        if not same_shape(self.size, size):
            raise invalid("camera", f"{size[0]} x {size[1]} pixels", f"an image of {self.size}")
        scale = np.array(self.size) / size
        center = original_to_network(self.center, scale)
        return replace(self.with_focal(self.focal / scale), size=size).with_center(center)

    def with_focal(self, focal: float | np.ndarray) -> Camera:
        """The camera with another focal length, or (2,) of them."""
        count = LENSES[self.model].focals
        fx, fy = np.broadcast_to(focal, 2).tolist()
        focals = (fx, fy) if count == 2 else (float(np.sqrt(fx * fy)),)
        return replace(self, params=(*focals, *self.params[count:]))

    def with_center(self, center: np.ndarray) -> Camera:
        """The camera with another (2,) principal point."""
        first = LENSES[self.model].focals
        params = (*self.params[:first], *center.tolist(), *self.params[first + 2 :])
        return replace(self, params=params)


def same_shape(first: Size, second: Size) -> bool:
    """Whether one size is another at some scale, but for rounding to whole pixels."""
    scale = float(np.sqrt(np.prod(np.array(second, float)) / np.prod(np.array(first, float))))
    return bool((np.abs(np.array(first) * scale - second) <= max(1.0, scale)).all())


def rescale_intrinsics(K: Tensor, scale: Tensor) -> Tensor:
    """(..., 3, 3) intrinsics of an image to those of it resized; (..., 2) `scale` as (x, y)."""
    change = torch.zeros_like(K)
    change[..., 0, 0], change[..., 1, 1] = 1 / scale[..., 0], 1 / scale[..., 1]
    change[..., :2, 2] = 0.5 / scale - 0.5
    change[..., 2, 2] = 1
    return change @ K


def invert_rigid(T: Tensor) -> Tensor:
    """The inverses of (..., 4, 4) rigid transforms."""
    out = torch.zeros_like(T)
    rotation = T[..., :3, :3].mT
    out[..., :3, :3] = rotation
    out[..., :3, 3:] = -rotation @ T[..., :3, 3:]
    out[..., 3, 3] = 1
    return out


def warp_points(
    points: Tensor, depth: Tensor, K0: Tensor, K1: Tensor, T_0to1: Tensor
) -> tuple[Tensor, Tensor]:
    """Where camera 1 sees points of image 0.

    Args:
        points: (..., N, 2) pixels of image 0.
        depth: (..., N) z-depth of the points from camera 0.
        K0: (..., 3, 3) in the pixels of `points`.
        K1: (..., 3, 3)
        T_0to1: (..., 4, 4)

    Returns:
        (..., N, 2) pixels of image 1 and (..., N) depths from camera 1. Only points with both
        depths above 0 are seen; the pixels of others mean nothing, but are finite.
    """
    ones = torch.ones_like(points[..., :1])
    rays = torch.cat([points, ones], dim=-1) @ torch.linalg.inv(K0).mT
    in_camera1 = (rays * depth[..., None]) @ T_0to1[..., :3, :3].mT + T_0to1[..., None, :3, 3]
    homogeneous = in_camera1 @ K1.mT
    z = homogeneous[..., 2]
    return homogeneous[..., :2] / z.clamp(min=1e-6)[..., None], z
