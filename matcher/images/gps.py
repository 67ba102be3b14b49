"""Where a photograph was taken, as its EXIF says."""

from __future__ import annotations

import os

import numpy as np
from PIL.ExifTags import GPS, IFD

from matcher.images.decode import exif_of

EQUATOR, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Meters, and the shape of the earth (WGS 84)."""


def gps_position(path: str | os.PathLike[str]) -> np.ndarray | None:
    """(3,) meters from the center of the earth (WGS 84), so that distances are those between
    places; None where the file does not say. Without an altitude it is 0."""
    exif = exif_of(path)
    tags = {} if exif is None else exif.get_ifd(IFD.GPSInfo)
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
    return position if known else None


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
