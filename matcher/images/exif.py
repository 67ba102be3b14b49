"""Focal length and place, as the EXIF of a photograph tells them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from PIL.ExifTags import GPS, IFD, Base

from matcher.errors import MatcherError
from matcher.geometry.cameras import Camera
from matcher.images.decode import identify, stored_size
from matcher.images.opening import open_regular, reading

FILM_DIAGONAL = 43.27
"""Millimeters, of a 35 mm film: equivalent focal lengths go by the diagonal (CIPA DCG-001)."""
MILLIMETERS = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""In the units of EXIF: inch, and what follows it."""
SMALLEST_SENSOR = 3.0
"""Millimeters across: a smaller one means that a picture was shrunk and its EXIF half changed."""
EQUATOR, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Meters, and the shape of the earth (WGS 84)."""


def exif_camera(path: str | os.PathLike[str]) -> Camera | None:
    """The camera of a photograph as its EXIF tells, in pixels as stored; a guess without a known
    focal length where it does not tell. None where there is no image with a size."""
    size = stored_size(path)
    if size is None:
        return None
    camera, focal = Camera.guessed(size), _focal(_exif_of(path, IFD.Exif), size)
    return camera if focal is None else replace(camera.with_focal(focal), focal_known=True)


def _exif_of(path: str | os.PathLike[str], part: IFD) -> dict[int, Any]:
    """A part of the EXIF of an image file, from its header; nothing where it cannot be read."""
    try:
        with open_regular(path) as file, reading(os.fspath(path)):
            image = identify(file)
            # Of a TIFF it is read from the file.
            return {} if image is None else dict(image.getexif().get_ifd(part))
    except MatcherError:
        return {}


def _focal(tags: dict[int, object], size: tuple[int, int]) -> float | None:
    """Pixels, or None.

    The resolution of a focal plane is that of the sensor: without the number of pixels that it had,
    or one that leads to a sensor as small as none is, it tells nothing of a picture that may have
    been shrunk.
    """
    film = _number(tags.get(Base.FocalLengthIn35mmFilm))
    if film:
        return film / FILM_DIAGONAL * float(np.hypot(*size))
    unit = MILLIMETERS.get(int(_number(tags.get(Base.FocalPlaneResolutionUnit))))
    names = Base.FocalLength, Base.FocalPlaneXResolution, Base.ExifImageWidth
    length, resolution, width = (_number(tags.get(name)) for name in names)
    if unit is None or not (length and resolution and width):
        return None
    sensor = width * unit / resolution
    return length / sensor * size[0] if sensor >= SMALLEST_SENSOR else None


def _number(value: object) -> float:
    """A value of EXIF, 0 for what is no number above 0."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, ArithmeticError):
        return 0.0
    return number if 0 < number < np.inf else 0.0


def gps_position(path: str | os.PathLike[str]) -> np.ndarray | None:
    """(3,) meters from the center of the earth (WGS 84), so that distances are those between
    places; None where the file does not say, or says 0, 0 as cameras do without a signal. Without
    an altitude it is 0."""
    tags = _exif_of(path, IFD.GPSInfo)
    try:
        latitude = _degrees(tags[GPS.GPSLatitude], tags.get(GPS.GPSLatitudeRef, "N"), "S")
        longitude = _degrees(tags[GPS.GPSLongitude], tags.get(GPS.GPSLongitudeRef, "E"), "W")
        altitude = float(tags.get(GPS.GPSAltitude, 0.0))
        if tags.get(GPS.GPSAltitudeRef) in (1, b"\x01"):
            altitude = -altitude
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    position = _from_center(np.radians(latitude), np.radians(longitude), altitude)
    known = abs(latitude) <= 90 and abs(longitude) <= 180 and np.isfinite(position).all()
    return position if known and (latitude or longitude) else None


def _degrees(parts: tuple[float, float, float], reference: str, negative: str) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    return -value if str(reference).upper().startswith(negative) else value


def _from_center(latitude: float, longitude: float, altitude: float) -> np.ndarray:
    square = FLATTENING * (2 - FLATTENING)
    radius = EQUATOR / np.sqrt(1 - square * np.sin(latitude) ** 2)
    across = (radius + altitude) * np.cos(latitude)
    up = (radius * (1 - square) + altitude) * np.sin(latitude)
    return np.array([across * np.cos(longitude), across * np.sin(longitude), up])
