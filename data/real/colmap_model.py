"""COLMAP models of pinhole cameras: binary ones through pycolmap, text ones by the reader here.

pycolmap cuts the names of a text model at their first space. Coordinates of COLMAP count from the
corner of the first pixel, ours from its center.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.real.readers import numbered_lines, require_file
from data.real.rgbd_layouts import rigid, unit_quaternion
from matcher.errors import Code, ImageError, UsageError, require_extra
from matcher.files import read_text
from matcher.geometry.colmap_model import LEAST_BYTES, require_whole
from matcher.geometry.pixels import from_colmap
from matcher.geometry.validity import usable_intrinsics, usable_pose


class Camera(NamedTuple):
    """A pinhole."""

    K: np.ndarray
    """(3, 3) in pixels of a picture of `size`"""
    size: tuple[int, int]
    """(H, W); photographs may have been scaled since"""


class ColmapImage(NamedTuple):
    """A registered picture."""

    name: str
    camera: Camera
    pose: np.ndarray
    """(4, 4) world to camera"""
    points2d: np.ndarray
    """(N, 2) the triangulated keypoints in pixels of the camera"""
    points3d: np.ndarray
    """(N,) their point ids"""


class ColmapModel(NamedTuple):
    """Registered pictures and the positions of all points."""

    images: tuple[ColmapImage, ...]
    points: dict[int, np.ndarray]


def read_model(folder: Path) -> ColmapModel:
    """A model in COLMAP's binary or text form.

    Raises:
        UsageError: no model there, a camera with distortion, or a binary one without pycolmap.
        ImageError: a damaged file.
    """
    binary = (folder / "images.bin").is_file()
    files = [folder / f"{name}.{'bin' if binary else 'txt'}" for name in LEAST_BYTES]
    for file in files:
        require_file(file, "file of a COLMAP model")
    try:
        model = read_binary(folder) if binary else read_text_model(*files)
        for image in model.images:
            _require_pose(image)
    except (struct.error, ValueError, LookupError, OverflowError, RuntimeError) as error:
        what = f"is not a COLMAP model ({error!r})"
        raise ImageError(Code.DAMAGED_IMAGE, folder, what) from error
    known = np.fromiter(model.points, np.int64)
    return ColmapModel(tuple(known_points(image, known) for image in model.images), model.points)


def known_points(image: ColmapImage, known: np.ndarray) -> ColmapImage:
    """The image without keypoints that are none of the `known` points."""
    kept = np.isin(image.points3d, known)
    return image._replace(points2d=image.points2d[kept], points3d=image.points3d[kept])


def pinhole(model: str, size: tuple[int, int], values: tuple[float, ...], where: Path) -> Camera:
    """A camera of (H, W) `size` and COLMAP's parameters.

    Raises:
        UsageError: a model with distortion.
        ValueError: a size or parameters that no camera has.
    """
    if model == "SIMPLE_PINHOLE":
        values = (values[0], *values)
    elif model != "PINHOLE":
        remedy = "undistort first (colmap image_undistorter)"
        raise UsageError(Code.FAULTY_LINE, where, f"has a camera {model}", remedy)
    if min(size) < 1:
        raise ValueError(f"a camera of {size[1]} x {size[0]} pixels")
    fx, fy, *center = values
    cx, cy = from_colmap(np.array(center))
    return Camera(usable_intrinsics(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])), size)


def _require_pose(image: ColmapImage) -> None:
    try:
        usable_pose(image.pose)
    except ValueError as error:
        raise ValueError(f"{image.name}: {error}") from None


def read_binary(folder: Path) -> ColmapModel:
    pycolmap = require_extra("pycolmap", "sfm", f"{folder} (a binary COLMAP model)")
    require_whole(folder)
    model = pycolmap.Reconstruction(folder)
    for name, size in _stored_bytes(model).items():
        _require_bytes(folder / f"{name}.bin", size)
    cameras = {
        number: pinhole(c.model.name, (c.height, c.width), tuple(c.params), folder)
        for number, c in model.cameras.items()
    }
    posed = [image for _, image in sorted(model.images.items()) if image.has_pose]
    images = tuple(_image(image, cameras[image.camera_id]) for image in posed)
    return ColmapModel(images, {n: np.array(point.xyz) for n, point in model.points3D.items()})


def _require_bytes(path: Path, size: int) -> None:
    """pycolmap reads on behind the end of a file that is cut, sometimes without end."""
    if path.stat().st_size < size:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes of {size}")


def _stored_bytes(model: Any) -> dict[str, int]:
    """What the files of a model measure."""
    cameras = sum(24 + 8 * len(camera.params) for camera in model.cameras.values())
    images = sum(73 + len(i.name.encode()) + 24 * i.num_points2D() for i in model.images.values())
    points = sum(51 + 8 * point.track.length() for point in model.points3D.values())
    return {"cameras": 8 + cameras, "images": 8 + images, "points3D": 8 + points}


def _image(image: Any, camera: Camera) -> ColmapImage:
    keypoints = image.get_observation_points2D()
    unit_quaternion(image.cam_from_world().rotation.quat)  # Its matrix of zeros is the identity.
    pose = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
    points2d = np.array([point.xy for point in keypoints]).reshape(-1, 2)
    points3d = np.array([point.point3D_id for point in keypoints], np.int64)
    return ColmapImage(image.name, camera, pose, from_colmap(points2d), points3d)


def read_text_model(cameras: Path, images: Path, points: Path) -> ColmapModel:
    known = {}
    for _, line in numbered_lines(cameras):
        number, model, width, height, *values = line.split()
        size = int(height), int(width)
        known[int(number)] = pinhole(model, size, tuple(map(float, values)), cameras)
    lines = [line for line in read_text(images).splitlines() if not line.startswith("#")]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    registered = tuple(_text_image(head, keypoints, known) for head, keypoints in pairs)
    table = (line.split() for _, line in numbered_lines(points))
    points3d = {int(row[0]): np.array(row[1:4], float).reshape(3) for row in table}
    return ColmapModel(registered, points3d)


def _text_image(head: str, keypoints: str, cameras: dict[int, Camera]) -> ColmapImage:
    _, qw, qx, qy, qz, *translation, camera, name = head.split(maxsplit=9)
    pose = rigid([float(q) for q in (qw, qx, qy, qz)], [float(t) for t in translation])
    table = np.array(keypoints.split(), float).reshape(-1, 3)
    points2d, points3d = from_colmap(table[:, :2]), table[:, 2].astype(np.int64)
    return ColmapImage(name, cameras[int(camera)], pose, points2d, points3d)
