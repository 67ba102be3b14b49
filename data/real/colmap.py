"""Own pictures with a COLMAP model, text or binary: poses, and depth at the triangulated points.

Coordinates of COLMAP count from the corner of the first pixel, ours from its centre.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from data.order import Key
from data.real.readers import Framing, View, fitted_intrinsics, join, make_view, read_gray
from data.real.rgbd_layouts import rotation_of
from matcher.errors import Code, ImageError, UsageError
from matcher.geometry.pixels import from_colmap, original_to_network
from matcher.structures import ImagePair

MODELS = {0: "SIMPLE_PINHOLE", 1: "PINHOLE"}
PATCH = 4
"""A point's depth stands for the network pixels up to so far around it: coarse labels only."""


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


@dataclass(frozen=True)
class ColmapModel:
    """Registered pictures and the positions of all points."""

    images: tuple[ColmapImage, ...]
    points: dict[int, np.ndarray]


class ColmapPairs(Dataset[ImagePair]):
    """Pairs of pictures that see common points.

    Args:
        images: the folder of the pictures.
        model: the folder of ``cameras``, ``images`` and ``points3D``, ``.bin`` or ``.txt``.
        min_points: least number of common points.
        overlap: range of common points over the points of the picture that has fewer.
        framing: of the network images.
    """

    def __init__(
        self,
        images: str | Path,
        model: str | Path,
        *,
        min_points: int = 50,
        overlap: tuple[float, float] = (0.1, 0.8),
        framing: Framing | None = None,
    ) -> None:
        self.folder = Path(images)
        self.model = read_model(Path(model))
        self.framing = framing or Framing()
        common = common_points(self.model)
        own = np.maximum(common.diagonal(), 1)
        share = common / np.minimum(own[:, None], own)
        chosen = (common >= min_points) & (share >= overlap[0]) & (share <= overlap[1])
        self.pairs = np.argwhere(np.triu(chosen, k=1))
        self.counts = (len(self.pairs),)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: int | Key) -> ImagePair:
        index = key[1] if isinstance(key, tuple) else key
        if not 0 <= index < len(self):
            raise IndexError(index)
        first, second = (self.model.images[i] for i in self.pairs[index])
        T_0to1 = second.pose @ np.linalg.inv(first.pose)
        return join(self.view(first), self.view(second), T_0to1, (first.name, second.name))

    def view(self, image: ColmapImage) -> View:
        """The picture with depth where points are.

        Raises:
            UsageError, ImageError: as `read_gray`, or other proportions than its camera (E105).
        """
        path = self.folder / image.name
        gray = read_gray(path)
        height, width = gray.shape
        camera = image.camera
        K = fitted_intrinsics(camera.K, camera.size, (height, width), path)
        size = self.framing.content(height, width)
        scale = np.array([camera.size[1] / size[1], camera.size[0] / size[0]])
        position = np.array([self.model.points[i] for i in image.points3d.tolist()])
        z = position.reshape(-1, 3) @ image.pose[2, :3] + image.pose[2, 3]
        depth = splat(original_to_network(image.points2d, scale), z, size)
        return make_view(gray, depth, K, self.framing)


def splat(points: np.ndarray, z: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) depth, the nearest of the points within `PATCH` pixels, 0 where there is none."""
    height, width = size
    depth = np.full(height * width, np.inf, np.float32)
    centre = np.rint(points[z > 0]).astype(int)
    reach = range(-PATCH, PATCH + 1)
    for dx, dy in ((dx, dy) for dx in reach for dy in reach):
        x, y = centre[:, 0] + dx, centre[:, 1] + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        np.minimum.at(depth, y[inside] * width + x[inside], z[z > 0][inside].astype(np.float32))
    return np.where(np.isfinite(depth), depth, 0).reshape(size)


def common_points(model: ColmapModel, chunk: int = 4096) -> np.ndarray:
    """(N, N) number of points that two pictures both see; on the diagonal those of one."""
    column = {point: i for i, point in enumerate(model.points)}
    seen = [np.unique([column[p] for p in image.points3d.tolist()]) for image in model.images]
    total = np.zeros((len(seen), len(seen)), np.float32)
    for start in range(0, len(column), chunk):
        part = np.zeros((len(seen), chunk), np.float32)
        for row, columns in zip(part, seen, strict=True):
            low, high = np.searchsorted(columns, (start, start + chunk))
            row[columns[low:high].astype(int) - start] = 1
        total += part @ part.T
    return total.astype(int)


def read_model(folder: Path) -> ColmapModel:
    """A model in COLMAP's binary or text form.

    Raises:
        UsageError: no model there, or a camera with distortion.
        ImageError: a damaged file.
    """
    binary = (folder / "images.bin").is_file()
    suffix = "bin" if binary else "txt"
    files = [folder / f"{name}.{suffix}" for name in ("cameras", "images", "points3D")]
    for file in files:
        if not file.is_file():
            raise UsageError(
                Code.MISSING_FILE, file, "no such file", "give the folder of a COLMAP model"
            )
    try:
        parse = _binary if binary else _text
        return known_points(parse(*files))
    except (struct.error, ValueError, LookupError, OverflowError) as error:
        raise ImageError(
            Code.DAMAGED_IMAGE, folder, f"is not a COLMAP model ({error!r})"
        ) from error


def known_points(model: ColmapModel) -> ColmapModel:
    """The model without keypoints that are no point or one that the model does not hold."""
    known = np.fromiter(model.points, np.int64)
    images = []
    for image in model.images:
        kept = np.isin(image.points3d, known)
        points2d, points3d = image.points2d[kept], image.points3d[kept]
        images.append(image._replace(points2d=points2d, points3d=points3d))
    return ColmapModel(tuple(images), model.points)


def pinhole(model: str, size: tuple[int, int], values: tuple[float, ...], where: Path) -> Camera:
    """A camera of (H, W) `size` and COLMAP's parameters.

    Raises:
        UsageError: a model with distortion.
        ValueError: a size or parameters that no camera has.
    """
    if model == "SIMPLE_PINHOLE":
        values = (values[0], *values)
    elif model != "PINHOLE":
        raise UsageError(
            Code.FAULTY_LINE,
            where,
            f"has a camera {model}",
            "undistort first (colmap image_undistorter)",
        )
    if min(size) < 1:
        raise ValueError(f"a camera of {size[1]} x {size[0]} pixels")
    fx, fy, *centre = values
    cx, cy = from_colmap(np.array(centre))
    return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), size)


def world_to_camera(quaternion: tuple[float, ...], translation: tuple[float, ...]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation_of(np.array(quaternion))
    pose[:3, 3] = translation
    return pose


def _text(cameras: Path, images: Path, points: Path) -> ColmapModel:
    known = {}
    for words in _rows(cameras):
        size = int(words[3]), int(words[2])
        known[int(words[0])] = pinhole(words[1], size, tuple(map(float, words[4:])), cameras)
    found, lines = [], [li for li in images.read_text().splitlines() if not li.startswith("#")]
    for head, body in zip(lines[::2], lines[1::2], strict=True):
        words = head.split(maxsplit=9)
        numbers = tuple(map(float, words[1:8]))
        table = np.array(body.split(), float).reshape(-1, 3)
        pose = world_to_camera(numbers[:4], numbers[4:])
        seen = from_colmap(table[:, :2]), table[:, 2].astype(np.int64)
        found.append(ColmapImage(words[9], known[int(words[8])], pose, *seen))
    positions = {int(words[0]): np.array(words[1:4], float) for words in _rows(points)}
    return ColmapModel(tuple(found), positions)


def _rows(path: Path) -> Iterator[list[str]]:
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.split()


class _Bytes:
    """Little-endian numbers one after the other."""

    def __init__(self, path: Path) -> None:
        self.data, self.place = path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
        values = struct.unpack_from("<" + layout, self.data, self.place)
        self.place += struct.calcsize("<" + layout)
        return values

    def count(self) -> int:
        return self.take("Q")[0]

    def text(self) -> str:
        end = self.data.index(b"\0", self.place)
        start, self.place = self.place, end + 1
        return self.data[start:end].decode()

    def table(self, count: int, dtype: np.dtype) -> np.ndarray:
        values = np.frombuffer(self.data, dtype, count, self.place)
        self.place += values.nbytes
        return values


def _binary(cameras: Path, images: Path, points: Path) -> ColmapModel:
    stream, known = _Bytes(cameras), {}
    for _ in range(stream.count()):
        number, model, width, height = stream.take("iiQQ")
        name = MODELS.get(model, f"of model {model}")
        values = stream.take("d" * (3 + model)) if model in MODELS else ()
        known[number] = pinhole(name, (height, width), values, cameras)
    stream, found = _Bytes(images), []
    keypoint = np.dtype([("xy", "<f8", 2), ("id", "<i8")])
    for _ in range(stream.count()):
        _, *pose, camera = stream.take("i7di")
        name = stream.text()
        table = stream.table(stream.count(), keypoint)
        motion = world_to_camera(tuple(pose[:4]), tuple(pose[4:]))
        seen = from_colmap(table["xy"]), table["id"]
        found.append(ColmapImage(name, known[camera], motion, *seen))
    stream, positions = _Bytes(points), {}
    for _ in range(stream.count()):
        number, x, y, z, _, _, _, _, track = stream.take("Q3d3BdQ")
        positions[number] = np.array([x, y, z])
        stream.place += 8 * track
    return ColmapModel(tuple(found), positions)
