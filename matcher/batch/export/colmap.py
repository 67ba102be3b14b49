"""Results as a COLMAP database, through pycolmap (extra ``sfm``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from matcher.batch.export.keypoints import merged_keypoints, pair_matches
from matcher.batch.image_names import Root
from matcher.batch.options import Camera
from matcher.batch.run import Run
from matcher.errors import Code, StorageError, UsageError, require_extra
from matcher.files import make_folder, write_atomically
from matcher.geometry.pixels import to_colmap

DATABASE, PAIRS = "database.db", "pairs.txt"
MAX_TRIALS, MIN_INLIER_RATIO = 20_000, 0.1


def export_colmap(
    run: Run,
    root: Root,
    side: float,
    camera: Camera | None = None,
    converged_only: bool = False,
) -> Path:
    """Write cameras, keypoints, matches and verified geometries into ``colmap/database.db``.

    Incremental mapping can start from it at once. COLMAP counts pixels from the corner of the
    top-left one, so keypoints are shifted by half a pixel.

    Args:
        run: a finished run of images in `root`.
        side: points of an image in a cell of so many pixels become one keypoint.
        camera: the same for all images, the center of the top-left pixel at (0, 0); by default
            each image has a camera of its own, guessed by COLMAP.
        converged_only: leave out matches whose refinement did not converge.

    Raises:
        UsageError: pycolmap is not installed (E210), or COLMAP cannot hold a name (E209).
        StorageError: a shard is damaged (E402), or COLMAP cannot write (E401).
    """
    pycolmap = require_extra("pycolmap", "sfm", "export=colmap")
    folder = run.folder / "colmap"
    make_folder(folder)
    database, part = folder / DATABASE, folder / f"{DATABASE}.part"
    _remove(part)
    try:
        _write(pycolmap, part, run, root, side, camera, converged_only)
        part.replace(database)
    except (OSError, RuntimeError, ValueError) as error:
        raise StorageError(Code.UNWRITABLE, database, f"COLMAP cannot write it: {error}") from error
    finally:
        _remove(part)
    return database


def _write(
    pycolmap: Any,
    database: Path,
    run: Run,
    root: Root,
    side: float,
    camera: Camera | None,
    converged_only: bool,
) -> None:
    with merged_keypoints(run, side, converged_only) as merged:
        used = np.flatnonzero(merged.counts).tolist()
        names = run.pairs.names
        number = _import_images(pycolmap, database, root, [names[i] for i in used], camera)
        lines = []
        with pycolmap.Database.open(database) as file:
            for image in used:
                keypoints, _ = merged.keypoints(image)
                file.write_keypoints(number[names[image]], to_colmap(keypoints))
            for pair in pair_matches(run, converged_only):
                matches, _ = merged.matches(pair)
                if len(matches):
                    both = names[pair.image0], names[pair.image1]
                    file.write_matches(*(number[name] for name in both), matches)
                    lines.append(" ".join(both))
    pairs = database.parent / PAIRS
    write_atomically(pairs, "".join(f"{line}\n" for line in lines).encode())
    ransac = {"max_num_trials": MAX_TRIALS, "min_inlier_ratio": MIN_INLIER_RATIO}
    pycolmap.verify_matches(database, pairs, options={"ransac": ransac})


def _import_images(
    pycolmap: Any, database: Path, root: Root, names: list[str], camera: Camera | None
) -> dict[str, int]:
    """Enter images and their cameras into a new database; COLMAP's numbers of the images."""
    for name in names:
        if not name.isprintable() or " " in name:
            what, remedy = "COLMAP's lists cannot hold this name", "rename the image without spaces"
            raise UsageError(Code.NAME_NOT_EXPORTABLE, name, what, remedy)
    with pycolmap.Database.open(database):
        pass
    mode, options = pycolmap.CameraMode.PER_IMAGE, {}
    if camera is not None:
        fx, fy, *center = camera
        mode = pycolmap.CameraMode.SINGLE
        parameters = ",".join(f"{value:.17g}" for value in (fx, fy, *to_colmap(np.array(center))))
        options = {"camera_model": "PINHOLE", "camera_params": parameters}
    pycolmap.import_images(database, root.folder, mode, image_names=names, options=options)
    with pycolmap.Database.open(database) as file:
        return {image.name: image.image_id for image in file.read_all_images()}


def _remove(path: Path) -> None:
    """A database and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
