"""Results as control points for GDAL and QGIS: two files for each pair, in ``gdal/``."""

from __future__ import annotations

from pathlib import Path

from matcher.batch.export.agreeing import agreeing_pairs
from matcher.batch.image_names import Root
from matcher.batch.run import Run
from matcher.files import make_folder
from matcher.interop.gdal import control_points, write_gdal, write_qgis

FOLDER = "gdal"


def export_gdal(run: Run, root: Root, converged_only: bool = False) -> list[Path]:
    """Write a virtual raster with control points and a ``.points`` file of image 1 of every pair
    that a homography explains; the world is that of image 0.

    Their names are the number of the pair in the list, counted from 1, and that of image 1.

    Raises:
        UsageError: rasterio is not installed (E210).
        ImageError: GDAL cannot read an image (E105).
        StorageError: a shard is damaged (E402) or a file cannot be written (E401).
    """
    make_folder(run.folder / FOLDER)
    numbers = {tuple(pair): i for i, pair in reversed([*enumerate(run.pairs.index.tolist(), 1)])}
    written = []
    for pair in agreeing_pairs(run, converged_only):
        path0, path1 = (root.path(run.pairs.names[i]) for i in (pair.image0, pair.image1))
        points = control_points(path0, pair.keypoints0, pair.keypoints1)
        stem = f"{numbers[pair.image0, pair.image1]:06d}-{Path(path1).stem}"
        target = run.folder / FOLDER / f"{stem}.vrt"
        write_gdal(target, path1, points)
        write_qgis(target.with_suffix(".points"), points)
        written.append(target)
    return written
