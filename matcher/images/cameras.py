"""Cameras of images from files: a table (CSV), a model of COLMAP, or the EXIF of each photograph.

A row of a table is ``name,fx,fy,cx,cy``, and where the lens bends lines ``,model`` and COLMAP's
parameters behind the center. `name` is an image, a folder or ``*`` for all images; the center of
the top-left pixel is (0, 0). A row that is a name alone: these images share a camera whose focal
length nobody knows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from matcher.errors import Code, MatcherError, UsageError, missing
from matcher.files import read_text
from matcher.geometry.cameras import Camera, Size
from matcher.geometry.colmap_model import load_model
from matcher.geometry.lenses import LENSES
from matcher.images.exif import exif_camera
from matcher.validation.checked import invalid
from matcher.validation.words import is_number

EXIF = "exif"
ALL = "*"
TABLES = "give a CSV file, a cameras.txt of COLMAP or exif"
WRITTEN = "fx, fy, cx, cy, of a lens also MODEL and parameters, or a line of COLMAP's cameras.txt"


class CameraOfImage(NamedTuple):
    """The camera of an image, and a name of it that images of the same camera share."""

    name: str
    camera: Camera


@dataclass(frozen=True)
class CameraTable:
    """Cameras by the names of images and folders; a camera of None is not known."""

    path: str
    entries: Mapping[str, tuple[str, Camera | None]]

    def has(self, image: str) -> bool:
        """Whether it has a camera for an image, by its name, a folder or ``*``."""
        return any(key in self.entries for key in keys_of(image))

    def find(self, image: str, size: Size) -> CameraOfImage:
        """The camera of an image at its size: that of the image, else of the nearest folder that
        the table names, else of all; one of its own, of which nothing is known, where it names
        none.

        Raises:
            UsageError: the image has another shape than those of the camera (E201).
        """
        name, camera = next(
            (self.entries[key] for key in keys_of(image) if key in self.entries), (image, None)
        )
        if camera is None:
            return CameraOfImage(name, Camera.guessed(size))
        try:
            return CameraOfImage(name, camera.resized(size))
        except UsageError as error:
            raise UsageError(
                error.code, f"{self.path}: {image}", error.what, error.remedy
            ) from None


def keys_of(image: str) -> Iterator[str]:
    """Names under which a table may hold an image, the nearest first: its path from any folder on,
    then its folders likewise, then all images."""
    parts = Path(image).as_posix().split("/")
    for end in range(len(parts), 0, -1):
        yield from ("/".join(parts[start:end]) for start in range(end))
    yield ALL


def find_camera(source: CameraTable | None, image: str, path: str, size: Size) -> CameraOfImage:
    """The camera of an image from a table, or without one from the EXIF in its file at `path`,
    where photographs of one focal length and size share a camera."""
    if source is not None:
        return source.find(image, size)
    camera = exif_camera(path) or Camera.guessed(size)
    return CameraOfImage(f"{camera.focal[0]:.6g}" if camera.focal_known else image, camera)


def read_cameras(path: str, images: Collection[str] = ()) -> CameraTable | None:
    """The table in a CSV file, a ``cameras.txt`` or a folder with a model of COLMAP; None for
    `EXIF`.

    Args:
        images: it must name one of them, where there are any.

    Raises:
        UsageError: no such file (E111), no table or of other images (E112), a line that is no
            camera (E113), or a binary model without pycolmap (E210).
    """
    if path == EXIF:
        return None
    table = _read_table(path)
    if images and not any(key in table.entries for image in images for key in keys_of(image)):
        what = f"names none of the images, such as {next(iter(images))}"
        raise UsageError(Code.UNREADABLE_LIST, path, what, "see docs/cameras.md")
    return table


def _read_table(path: str) -> CameraTable:
    place = Path(path)
    if not place.exists():
        raise missing(path, remedy=TABLES)
    if place.is_dir() and (place / "cameras.bin").is_file():
        return CameraTable(path, dict(_binary_entries(place)))
    file = place / "cameras.txt" if place.is_dir() else place
    entries = dict((_colmap_entries if file.suffix == ".txt" else _csv_entries)(file))
    if not entries:
        raise UsageError(Code.UNREADABLE_LIST, file, "holds no camera", "see docs/cameras.md")
    return CameraTable(path, entries)


def parse_camera(text: str, name: str = "camera") -> Camera | None:
    """The camera that a text tells as a row of a table does behind the name, or as a line of a
    ``cameras.txt``; None where it tells nothing.

    Raises:
        UsageError: it is no camera (E201); `name` is its name in the message.
    """
    words = re.split(r"[,\s]+", text.strip("[], \t\n"))
    try:
        return _colmap_camera(words) if words[1:2] and words[1] in LENSES else _row_camera(words)
    except ValueError as error:
        raise invalid(name, text, WRITTEN) from error
    except UsageError as error:
        raise UsageError(error.code, name, f"{error.subject}: {error.what}", error.remedy) from None


def camera_text(camera: Camera) -> str:
    """The camera as `parse_camera` reads it."""
    numbers = [*camera.focal, *camera.center]
    bent = camera.params[LENSES[camera.model].focals + 2 :]
    lens = [camera.model, *(f"{value:.9g}" for value in bent)] if camera.distorted else []
    return ", ".join([*(f"{number:.9g}" for number in numbers), *lens])


def _csv_entries(path: Path) -> Iterator[tuple[str, tuple[str, Camera | None]]]:
    keys = set[str]()
    for row, (number, line) in enumerate(_lines(path)):
        try:
            name, *values = [cell.strip() for cell in next(csv.reader([line], strict=True))]
            if row == 0 and values and not any(map(is_number, values)):
                continue
            camera = _row_camera(values)
            key = name if name == ALL else Path(name).as_posix()
            if key in keys:
                raise ValueError(f"{key} has one already")
            if not values and any(mark in name for mark in ";\t"):
                raise ValueError("cells stand between commas")
        except (ValueError, csv.Error, MatcherError) as error:
            raise _faulty(path, number, error) from None
        keys.add(key)
        yield key, (key, camera)


def _row_camera(values: list[str]) -> Camera | None:
    """The camera of fx, fy, cx, cy, the model and its parameters; None where they are empty."""
    if not any(values):
        return None
    if len(values) < 4:
        raise ValueError(f"{len(values)} numbers, expected fx, fy, cx, cy")
    fx, fy, cx, cy = map(float, values[:4])
    model, *rest = [value for value in values[4:] if value] or ["PINHOLE"]
    one = model in LENSES and LENSES[model].focals == 1
    if one and fx != fy:
        raise ValueError(f"{model} has one focal length, got {fx:g} and {fy:g}")
    return Camera(model, ((fx,) if one else (fx, fy)) + (cx, cy, *map(float, rest)))


def _colmap_camera(words: list[str]) -> Camera:
    """The camera of a number, the model, width, height and parameters."""
    number, model, width, height, *params = words
    if not number.isdecimal():
        raise ValueError(f"{number} stands where COLMAP has a number")
    return Camera.of_colmap(model, list(map(float, params)), (int(width), int(height)))


def _colmap_entries(path: Path) -> Iterator[tuple[str, tuple[str, Camera | None]]]:
    cameras: dict[str, Camera] = {}
    for number, line in _lines(path):
        try:
            words = line.split()
            cameras[words[0]] = _colmap_camera(words)
        except (ValueError, MatcherError) as error:
            raise _faulty(path, number, error) from None
    images = path.with_name("images.txt")
    if not images.is_file():
        if len(cameras) != 1:
            what, remedy = f"holds {len(cameras)} cameras", "put COLMAP's images.txt beside it"
            raise UsageError(Code.UNREADABLE_LIST, path, what, remedy)
        yield from ((ALL, camera) for camera in cameras.items())
        return
    lines = enumerate(read_text(images, remedy=TABLES).splitlines(), 1)
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        try:
            key, name = line.split(maxsplit=9)[8:]
            yield name, (key, cameras[key])
        except (ValueError, LookupError) as error:
            raise _faulty(images, number, error) from None
        next(lines, None)  # The points of the image, which may be none.


def _binary_entries(folder: Path) -> Iterator[tuple[str, tuple[str, Camera | None]]]:
    model = load_model(folder, f"cameras={folder}")
    for image in model.images.values():
        c = model.cameras[image.camera_id]
        camera = Camera.of_colmap(c.model.name, c.params, (c.width, c.height))
        yield image.name, (str(image.camera_id), camera)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers."""
    for number, line in enumerate(read_text(path, remedy=TABLES).splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _faulty(path: Path, number: int, error: Exception) -> UsageError:
    what = error.what if isinstance(error, MatcherError) else str(error)
    remedy = error.remedy if isinstance(error, MatcherError) else "see docs/cameras.md"
    return UsageError(Code.FAULTY_LINE, path, f"line {number} is no camera: {what}", remedy)
