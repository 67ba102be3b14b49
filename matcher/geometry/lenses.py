"""Lenses: COLMAP's camera models, from points of the image plane to the rays behind them.

A point of the image plane is a pixel less the center, over the focal length. Models and their
parameters are those of COLMAP, in its order. ``EQUIRECTANGULAR`` is not among them: most of its
rays have no point in front of a pinhole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Bend = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(..., 2) points and the parameters to (..., 2) points."""
WIDEST = np.radians(89.0)
"""Angle from the axis beyond which a ray has no place in a pinhole's image."""
STEPS = 30
EXACT = 1e-9
"""Distance on the image plane at which a point counts as undistorted."""


class Lens(NamedTuple):
    """A model: what stands behind the focal length and the center, and what it does."""

    focals: int
    """1: f; 2: fx, fy"""
    parameters: int
    """How many follow the center"""
    distort: Bend | None = None
    """From rays to the image plane; inverted by Newton's method"""
    undistort: Bend | None = None
    """From the image plane to rays, where that has a closed form"""
    fisheye: bool = False
    """The plane is of angles: a ray at an angle t from the axis has its point at distance t"""


def rays_of(lens: Lens, points: np.ndarray, params: np.ndarray) -> np.ndarray:
    """(N, 2) points of the image plane as rays (x, y, 1); NaN for those that no ray reaches."""
    with np.errstate(all="ignore"):
        if lens.undistort is not None:
            points = lens.undistort(points, params)
        elif lens.distort is not None:
            points = _inverted(lens.distort, points, params)
        if lens.fisheye:
            angle = np.linalg.norm(points, axis=-1, keepdims=True)
            stretch = np.where(angle > 0, np.tan(angle) / angle, 1.0)
            points = np.where(angle < WIDEST, points * stretch, np.nan)
        return points


def _inverted(distort: Bend, wanted: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Points that `distort` takes to the `wanted` ones, on the branch that holds the center."""
    points, step = wanted.copy(), 1e-6
    for _ in range(STEPS):
        off = distort(points, params) - wanted
        # Columns: how the distorted point moves along x and along y.
        columns = [
            (distort(points + h, params) - distort(points - h, params)) / (2 * step)
            for h in np.eye(2) * step
        ]
        (a, c), (b, d) = (column.T for column in columns)
        determinant = a * d - b * c
        change = np.stack([d * off[:, 0] - b * off[:, 1], a * off[:, 1] - c * off[:, 0]], axis=1)
        points = points - change / determinant[:, None]
        if np.nanmax(np.abs(off), initial=0) < EXACT:
            break
    lost = ~((np.abs(off).max(axis=1) < EXACT) & (determinant > 0))
    points[lost] = np.nan
    return points


def _polynomial(r2: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """c[0] r^2 + c[1] r^4 + ..."""
    return r2 * np.polynomial.polynomial.polyval(r2, coefficients)


def _squared(points: np.ndarray) -> np.ndarray:
    return (points**2).sum(axis=-1, keepdims=True)


def _radial(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    return points * (1 + _polynomial(_squared(points), k))


def _tangential(points: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The shift of a lens that stands askew (Brown and Conrady)."""
    product = 2 * points.prod(axis=-1, keepdims=True)
    return product * p + p[::-1] * (_squared(points) + 2 * points**2)


def _opencv(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    return _radial(points, k[:2]) + _tangential(points, k[2:4])


def _full_opencv(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    r2 = _squared(points)
    ratio = (1 + _polynomial(r2, k[[0, 1, 4]])) / (1 + _polynomial(r2, k[5:]))
    return points * ratio + _tangential(points, k[2:4])


def _thin_prism(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    straight = _radial(points, k[[0, 1, 4, 5]]) + _tangential(points, k[2:4])
    return straight + _squared(points) * k[6:]


def _rad_tan_thin_prism(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    points = _radial(points, k[:6])
    r2, product = _squared(points), 2 * points.prod(axis=-1, keepdims=True)
    prism = np.concatenate([_polynomial(r2, k[8:10]), _polynomial(r2, k[10:12])], axis=-1)
    return points + k[6:8] * (2 * points**2 + r2) + k[[7, 6]] * product + prism


def _field_of_view(points: np.ndarray, omega: np.ndarray) -> np.ndarray:
    r = np.sqrt(_squared(points))
    width = 2 * np.tan(omega / 2)
    stretch = np.where(r > 0, np.tan(r * omega) / (r * width), omega / width)
    return np.where(r * omega < WIDEST, points * stretch, np.nan)


def _division(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    depth = 1 + k * _squared(points)
    return np.where(depth > 0, points / depth, np.nan)


def _enhanced_unified(points: np.ndarray, k: np.ndarray) -> np.ndarray:
    alpha, beta = k
    r2 = beta * _squared(points)
    depth = (1 - alpha**2 * r2) / (alpha * np.sqrt(1 - (2 * alpha - 1) * r2) + 1 - alpha)
    return np.where(depth > 0, points / depth, np.nan)


LENSES: dict[str, Lens] = {
    "SIMPLE_PINHOLE": Lens(1, 0),
    "PINHOLE": Lens(2, 0),
    "SIMPLE_RADIAL": Lens(1, 1, _radial),
    "RADIAL": Lens(1, 2, _radial),
    "OPENCV": Lens(2, 4, _opencv),
    "FULL_OPENCV": Lens(2, 8, _full_opencv),
    "FOV": Lens(2, 1, undistort=_field_of_view),
    "SIMPLE_DIVISION": Lens(1, 1, undistort=_division),
    "DIVISION": Lens(2, 1, undistort=_division),
    "EUCM": Lens(2, 2, undistort=_enhanced_unified),
    "SIMPLE_FISHEYE": Lens(1, 0, fisheye=True),
    "FISHEYE": Lens(2, 0, fisheye=True),
    "SIMPLE_RADIAL_FISHEYE": Lens(1, 1, _radial, fisheye=True),
    "RADIAL_FISHEYE": Lens(1, 2, _radial, fisheye=True),
    "OPENCV_FISHEYE": Lens(2, 4, _radial, fisheye=True),
    "THIN_PRISM_FISHEYE": Lens(2, 8, _thin_prism, fisheye=True),
    "RAD_TAN_THIN_PRISM_FISHEYE": Lens(2, 12, _rad_tan_thin_prism, fisheye=True),
}
"""By the names of COLMAP."""
