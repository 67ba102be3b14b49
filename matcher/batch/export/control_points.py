"""Matches as control points: of GDAL, which warps images, and of Hugin, which stitches them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from matcher.batch.export.cameras import camera_of_each_image
from matcher.batch.export.keypoints import PairMatches, pair_matches
from matcher.batch.image_names import Root
from matcher.batch.options import Pinhole
from matcher.batch.run import Run
from matcher.files import make_folder
from matcher.geometry.robust import Estimator, estimate_homography
from matcher.geometry.verdict import judge_model
from matcher.images.decode import stored_size
from matcher.interop.gdal import control_points, write_gdal, write_qgis
from matcher.interop.hugin import Picture, Tie, write_hugin

THRESHOLD = 3.0
"""Pixels that a match may be off the homography: lenses and hills bend it."""
FOLDER = "gdal"
PROJECT = "panorama.pto"
POINTS = 100
"""Control points of a pair, at most: Hugin's optimizer takes long over thousands."""


def agreeing_pairs(run: Run, converged_only: bool = False) -> Iterator[PairMatches]:
    """Pairs of a finished run whose verdict is reliable, with their inliers alone, best first;
    raises as `pair_matches`."""
    for pair in pair_matches(run, converged_only):
        if pair.image0 == pair.image1:
            continue
        points = pair.keypoints0, pair.keypoints1
        found = estimate_homography(*points, estimator=Estimator(threshold=THRESHOLD))
        if found is None:
            continue
        verdict = judge_model(*points, found.matrix, kind="homography", threshold=THRESHOLD)
        if verdict.reliable:
            kept = (-pair.scores).argsort(kind="stable")
            kept = kept[found.inliers[kept]]
            columns = pair.keypoints0[kept], pair.keypoints1[kept], pair.scores[kept]
            yield PairMatches(pair.image0, pair.image1, *columns)


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


def export_hugin(
    run: Run,
    root: Root,
    pinhole: Pinhole | None = None,
    cameras: str | None = None,
    converged_only: bool = False,
) -> Path:
    """Write all images that can be read, and the control points of pairs that a homography
    explains.

    Args:
        run: is finished.
        root: of its images.
        pinhole, cameras: see `camera_of_each_image`; the focal lengths alone go into a project.
        converged_only: leave out matches whose refinement did not converge.

    Raises:
        UsageError: an image does not fit its camera, or a project cannot hold its name (E201).
        StorageError: a shard is damaged (E402) or the file cannot be written (E401).
    """
    names = run.pairs.names
    found = ((i, stored_size(root.path(name))) for i, name in enumerate(names))
    sizes = {i: size for i, size in found if size is not None}
    of_name = {names[i]: size for i, size in sizes.items()}
    known = camera_of_each_image(of_name, root, pinhole, cameras)
    focals = {name: one.camera.focal[0] for name, one in known.items() if one.camera.focal_known}
    pictures = [
        Picture(os.path.abspath(root.path(names[i])), *size, focals.get(names[i]))
        for i, size in sizes.items()
    ]
    place = {image: number for number, image in enumerate(sizes)}
    ties = (
        Tie(place[p.image0], place[p.image1], p.keypoints0[:POINTS], p.keypoints1[:POINTS])
        for p in agreeing_pairs(run, converged_only)
        if p.image0 in place and p.image1 in place
    )
    write_hugin(run.folder / PROJECT, pictures, ties)
    return run.folder / PROJECT
