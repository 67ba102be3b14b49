"""Results as a COLMAP database, through pycolmap (extra ``sfm``)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from matcher.batch.export.cameras import camera_of_each_image
from matcher.batch.export.keypoints import Merged, PairMatches, merged_keypoints, pair_matches
from matcher.batch.export.tracks import Load, refine_tracks
from matcher.batch.image_names import Root, encode_name
from matcher.batch.options import Pinhole
from matcher.batch.run import Run
from matcher.errors import Code, StorageError, UsageError, require_extra
from matcher.files import make_folder
from matcher.geometry.cameras import GUESSED_FOCAL, Camera, Size
from matcher.geometry.pixels import to_colmap
from matcher.images.cameras import CameraOfImage
from matcher.images.decode import stored_size

FOLDER, DATABASE = "colmap", "database.db"
MAX_TRIALS = 20_000
MAX_ERROR, SMALL = 4.0, 640
"""Pixels of an inlier in images of a longer side of `SMALL` and above, as COLMAP has it; less in
smaller ones, where by chance many points lie within 4 pixels of a line."""
VERIFIED_RATIO = 0.25
"""Share of the matches that the geometry of a verified pair explains. Random matches have some 15
inliers now and then: of 200 sets of 100 to 400 none has this share."""
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def require_colmap(
    names: Sequence[str], root: Root, camera: Pinhole | None, cameras: str | None
) -> None:
    """Refuse what the export would refuse in the end.

    Raises:
        UsageError: pycolmap is not installed (E210), COLMAP cannot hold a name (E209), an image has
            a shape that is not of its camera (E201), or as `read_cameras`.
    """
    require_extra("pycolmap", "sfm", "export=colmap")
    for name in names:
        if _UNFIT.search(name):
            what = "COLMAP cannot hold this name"
            remedy = "rename the image: no control characters, UTF-8"
            raise UsageError(Code.NAME_NOT_EXPORTABLE, encode_name(name), what, remedy)
    if camera is not None or cameras is not None:
        camera_of_each_image(_sizes(names, root), root, camera, cameras)


def export_colmap(
    run: Run,
    root: Root,
    side: float,
    camera: Pinhole | None = None,
    converged_only: bool = False,
    cameras: str | None = None,
    load: Load | None = None,
) -> Path:
    """Write cameras, images, keypoints, matches and verified geometries into
    ``colmap/database.db``; images that cannot be read are not in it.

    Incremental mapping can start from it at once. COLMAP counts pixels from the corner of the
    top-left one, so keypoints are shifted by half a pixel.

    Args:
        run: a finished run of images in `root`.
        side: points of an image in a cell of so many pixels become one keypoint.
        camera: the same for all images, the center of the top-left pixel at (0, 0), turned or
            scaled to each of their sizes; by default each image has a camera of its own, guessed.
        converged_only: leave out matches whose refinement did not converge.
        cameras: else a file of cameras or ``exif``; images of one of its cameras share one.
        load: reads the images to refine the tracks; None: they are left.

    Raises:
        UsageError: as `require_colmap`.
        StorageError: a shard is damaged (E402), or COLMAP cannot write (E401).
    """
    require_colmap(run.pairs.names, root, camera, cameras)
    pycolmap = require_extra("pycolmap", "sfm", "export=colmap")
    folder = run.folder / FOLDER
    make_folder(folder)
    database, part = folder / DATABASE, folder / f"{DATABASE}.part"
    _remove(part)
    try:
        with _quiet(pycolmap):
            assigned = camera_of_each_image(_sizes(run.pairs.names, root), root, camera, cameras)
            _write(pycolmap, part, run, root, side, assigned, converged_only, load)
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
    cameras: Mapping[str, CameraOfImage],
    converged_only: bool,
    load: Load | None,
) -> None:
    names = run.pairs.names
    sizes = _sizes(names, root)
    written = {number for number, name in enumerate(names, 1) if name in sizes}
    with (
        merged_keypoints(run, side, converged_only) as merged,
        pycolmap.Database.open(database) as file,
        pycolmap.DatabaseTransaction(file),
    ):
        if load is not None:
            refine_tracks(
                merged, pair_matches(run, converged_only), load, placed_only=converged_only
            )
        _write_images(pycolmap, file, names, root, sizes, cameras)
        _write_matches(file, merged, written, pair_matches(run, converged_only))
    _verify(pycolmap, database, float(np.median([max(size) for size in sizes.values()] or [SMALL])))


def _verify(pycolmap: Any, database: Path, side: float) -> None:
    """Enter the geometries of pairs that have one, of images of a longer side of about `side`;
    COLMAP enters empty ones too."""
    ransac = {
        "max_error": MAX_ERROR * min(1.0, side / SMALL),
        "max_num_trials": MAX_TRIALS,
        "min_inlier_ratio": VERIFIED_RATIO,
        "random_seed": 0,
    }
    options = {"min_inlier_ratio": VERIFIED_RATIO, "ransac": ransac}
    pycolmap.geometric_verification(database, two_view_geometry_options=options)
    with pycolmap.Database.open(database) as file:
        inliers = dict(zip(*file.read_two_view_geometry_num_inliers(), strict=True))
        for pair in file.read_num_matches()[0]:
            if not inliers.get(pair):
                file.delete_two_view_geometry(*pycolmap.pair_id_to_image_pair(pair))


def _write_images(
    pycolmap: Any,
    file: Any,
    names: Sequence[str],
    root: Root,
    sizes: Mapping[str, Size],
    cameras: Mapping[str, CameraOfImage],
) -> None:
    """Enter images, numbered from 1 as in the list, their cameras, and a rig and frames for them,
    as COLMAP 4 wants it; a camera of several images at each of their sizes."""
    written: dict[tuple[str, Size], Any] = {}
    for number, name in enumerate(names, 1):
        if name not in sizes:
            continue
        size = sizes[name]
        owner = cameras[name].name if name in cameras else f"image {number}"
        camera = written.get((owner, size))
        if camera is None:
            if name in cameras:
                camera = _camera(pycolmap, cameras[name].camera, size)
            else:
                camera = _guessed(pycolmap, root.path(name), size)
            camera.camera_id = number
            file.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=number)
            rig.add_ref_sensor(camera.sensor_id)
            file.write_rig(rig, use_rig_id=True)
            written[owner, size] = camera
        image = pycolmap.Image(name=name, camera_id=camera.camera_id, image_id=number)
        file.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=number, rig_id=camera.camera_id)
        frame.add_data_id(image.data_id)
        file.write_frame(frame, use_frame_id=True)


def _write_matches(
    file: Any, merged: Merged, written: set[int], pairs: Iterable[PairMatches]
) -> None:
    """Keypoints and matches of the images that are in the database."""
    for image in np.flatnonzero(merged.counts).tolist():
        if image + 1 in written:
            file.write_keypoints(image + 1, to_colmap(merged.keypoints(image)[0]))
    for pair in pairs:
        both = pair.image0 + 1, pair.image1 + 1
        matches, _ = merged.matches(pair)
        if len(matches) and written.issuperset(both):
            file.write_matches(*both, matches)


def _camera(pycolmap: Any, camera: Camera, size: Size) -> Any:
    """With its lens; one whose focal length is not known is for COLMAP to refine."""
    return pycolmap.Camera(
        model=camera.model,
        width=size[0],
        height=size[1],
        params=camera.colmap_params,
        has_prior_focal_length=camera.focal_known,
    )


def _guessed(pycolmap: Any, path: str, size: Size) -> Any:
    """As COLMAP guesses a camera from EXIF, also of formats that COLMAP does not read."""
    try:
        camera = pycolmap.infer_camera_from_image(path)
        if (camera.width, camera.height) == size:
            return camera
    except (ValueError, RuntimeError):
        pass
    focal = GUESSED_FOCAL * max(size)
    return pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", focal, *size)


def _sizes(names: Sequence[str], root: Root) -> dict[str, Size]:
    """Sizes of the images that can be read."""
    found = ((name, stored_size(root.path(name))) for name in names)
    return {name: size for name, size in found if size is not None}


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """Meanwhile COLMAP says nothing: what goes wrong is raised."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def _remove(path: Path) -> None:
    """A database and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
