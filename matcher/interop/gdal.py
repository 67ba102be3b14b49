"""Matches as control points of image 1: for GDAL in a virtual raster, for QGIS as ``.points``.

The world of the points is that of image 0 where it is georeferenced, and else its pixels with y
upwards, as QGIS shows them. GDAL and QGIS count pixels as COLMAP does, from the outer corner of the
first one.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from matcher.errors import Code, ImageError, require_extra
from matcher.files import write_atomically
from matcher.geometry.pixels import to_colmap

QGIS_HEADER = "mapX,mapY,sourceX,sourceY,enable,dX,dY,residual"
UNPLACED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""What GDAL says of an image without a place."""
PLACED_BEFORE = ("GeoTransform", "SRS", "GCPList")
"""What a virtual raster says of where its image lies, and must not beside control points."""


class ControlPoints(NamedTuple):
    """Points of an image and of the world."""

    pixels: np.ndarray
    """(N, 2) float64 (x, y), (0, 0) at the outer corner of the top-left pixel"""
    world: np.ndarray
    """(N, 2) float64"""
    crs: str
    """The system of the world as WKT; empty where it is none"""


def control_points(
    image0: str | os.PathLike[str], keypoints0: np.ndarray, keypoints1: np.ndarray
) -> ControlPoints:
    """Control points of image 1 from (N, 2) matches in our pixels.

    Raises:
        UsageError: rasterio is not installed (E210).
        ImageError: GDAL cannot read image 0 (E105).
    """
    pixels0, pixels1 = (to_colmap(np.asarray(k, np.float64)) for k in (keypoints0, keypoints1))
    with _opened(image0) as dataset:
        a, b, c, d, e, f = dataset.transform[:6]
        crs = dataset.crs.to_wkt() if dataset.crs else ""
    if (a, b, c, d, e, f) == UNPLACED:
        e = -1.0
    return ControlPoints(pixels1, pixels0 @ np.array([[a, d], [b, e]]) + [c, f], crs)


def write_qgis(path: str | Path, points: ControlPoints) -> None:
    """Write a ``.points`` file for QGIS's georeferencer; StorageError (E401) where it cannot be."""
    lines = [f"#CRS: {points.crs}"] if points.crs else []
    lines.append(QGIS_HEADER)
    for (x, y), (map_x, map_y) in zip(points.pixels.tolist(), points.world.tolist(), strict=True):
        lines.append(f"{map_x!r},{map_y!r},{x!r},{-y!r},1,0,0,0")
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def write_gdal(path: str | Path, image1: str | os.PathLike[str], points: ControlPoints) -> None:
    """Write a virtual raster (``.vrt``) of image 1 with control points, for ``gdalwarp``.

    Its own place, if it has one, is not in it.

    Raises:
        UsageError: rasterio is not installed (E210).
        ImageError: GDAL cannot read image 1 (E105).
        StorageError: it cannot be written (E401).
    """
    root = _virtual_raster(image1)
    for element in [e for e in root if e.tag in PLACED_BEFORE]:
        root.remove(element)
    listed = ElementTree.SubElement(root, "GCPList")
    if points.crs:
        listed.set("Projection", points.crs)
    rows = np.hstack([points.pixels, points.world]).tolist()
    for number, values in enumerate(rows, 1):
        place = zip(("Pixel", "Line", "X", "Y", "Z"), (*values, 0.0), strict=True)
        attributes = {name: repr(value) for name, value in place}
        ElementTree.SubElement(listed, "GCP", {"Id": str(number), **attributes})
    write_atomically(path, ElementTree.tostring(root))


def _virtual_raster(image: str | os.PathLike[str]) -> ElementTree.Element:
    """The root of a virtual raster that shows an image and counts its pixels from the corner."""
    copy = require_extra("rasterio.shutil", "geo", "control points").copy
    with _opened(image) as dataset, TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.vrt"
        copy(dataset, draft, driver="VRT")
        root = ElementTree.fromstring(draft.read_bytes())
    for note in root.iterfind("Metadata/MDI[@key='AREA_OR_POINT']"):
        note.text = "Area"
    return root


def _opened(image: str | os.PathLike[str]) -> Any:
    rasterio = require_extra("rasterio", "geo", "control points")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            return rasterio.open(os.path.abspath(image))
    except rasterio.errors.RasterioIOError as error:
        what = f"GDAL cannot read it: {error}"
        raise ImageError(Code.UNSUPPORTED_IMAGE, image, what, "convert it to TIFF") from error
