"""Results as one panorama project for Hugin: ``panorama.pto``."""

from __future__ import annotations

import os
from pathlib import Path

from matcher.batch.export.agreeing import agreeing_pairs
from matcher.batch.export.cameras import camera_of_each_image
from matcher.batch.image_names import Root
from matcher.batch.options import Pinhole
from matcher.batch.run import Run
from matcher.images.decode import stored_size
from matcher.interop.hugin import Picture, Tie, write_hugin

PROJECT = "panorama.pto"
POINTS = 100
"""Control points of a pair, at most: Hugin's optimizer takes long over thousands."""


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
