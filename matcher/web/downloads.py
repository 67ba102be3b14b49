"""The files that the page offers of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np

from matcher.batch.export.colmap import export_colmap
from matcher.batch.fingerprints import ImageFiles
from matcher.batch.image_names import Root
from matcher.batch.manifest import Manifest
from matcher.batch.pairs import PairList
from matcher.batch.run import start_run
from matcher.batch.shards import Shard
from matcher.drawing.matches import write_picture
from matcher.files import make_folder, write_atomically
from matcher.images.cameras import ALL, camera_text
from matcher.images.encode import encode
from matcher.results.record import write_matches
from matcher.structures import Matches
from matcher.web.app import Cameras, Shown

COLMAP = "colmap.zip"
LABELS = {
    "matches.csv": "Matches (CSV)",
    "matches.h5": "Matches (HDF5)",
    "matches.png": "Picture (PNG)",
    COLMAP: "COLMAP (ZIP)",
}
"""File to what its button says."""
NAMES = "image0.jpg", "image1.jpg"
SIDE = 0.1
"""Pixels within which keypoints become one: two images share them with no third."""


def write_downloads(folder: Path, shown: Shown) -> dict[str, Path]:
    """Write what needs no other program; name to file."""
    write_matches(folder / "matches.csv", shown.record)
    write_matches(folder / "matches.h5", shown.record)
    write_picture(folder / "matches.png", shown.picture)
    return {name: folder / name for name in LABELS if name != COLMAP}


def can_write_colmap() -> bool:
    return find_spec("pycolmap") is not None


def write_colmap(
    folder: Path, images: Sequence[np.ndarray], matches: Matches, cameras: Cameras
) -> Path:
    """Write a COLMAP database of a pair, and its two images, in one file.

    Raises:
        UsageError: without pycolmap (E210).
    """
    with TemporaryDirectory(dir=folder) as place:
        pictures = Path(place) / "images"
        make_folder(pictures)
        for name, image in zip(NAMES, images, strict=True):
            write_atomically(pictures / name, encode(image, ".jpg"))
        root, pairs = Root(str(pictures)), PairList.of([NAMES])
        found = ImageFiles.of(pairs.names, root)
        run = start_run(Path(place) / "run", Manifest.of(pairs, found, 1, {}), pairs, found)
        run.write(0, Shard.of([matches]))
        table = Path(place) / "cameras.csv"
        write_atomically(table, table_of(cameras).encode())
        database = export_colmap(run, root, SIDE, cameras=str(table))
        with ZipFile(folder / COLMAP, "w") as file:
            file.write(database, database.name)
            for name in NAMES:
                file.write(pictures / name, f"images/{name}")
    return folder / COLMAP


def table_of(cameras: Cameras) -> str:
    """A table of the cameras of `NAMES` as far as they are known; equal ones are one camera."""
    told = [camera_text(camera) if camera.focal_known else "" for camera in cameras]
    if told[0] and cameras[0] == cameras[1]:
        return f"{ALL}, {told[0]}\n"
    return "".join(f"{name}, {text}\n" for name, text in zip(NAMES, told, strict=True))
