"""Photographs in a model of COLMAP: `quadmatch localize QUERY model=FOLDER images=FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from matcher.batch.folders import read_folder
from matcher.errors import Code, MatcherError, UsageError, missing
from matcher.files import check_targets, write_atomically
from matcher.geometry.cameras import Camera, Size
from matcher.images.cameras import CameraTable, find_camera, read_cameras
from matcher.images.load import load_image
from matcher.options import rows_of
from matcher.predictor import load_matcher
from matcher.tasks.localization.localizer import Localizer, Location
from matcher.tasks.localization.options import LocalizationOptions
from matcher.tasks.localization.scene import read_scene
from matcher.terminal.program import program, tell, warn
from matcher.validation.words import describe, key_values, options_from_words

USAGE = """\
usage: quadmatch localize QUERY model=FOLDER images=FOLDER [key=value ...] [--debug]

Finds where a photograph, or each of a folder, was taken in a model that COLMAP made of others.

examples:
  quadmatch localize query.jpg model=sparse/0 images=photos cameras=exif
  quadmatch localize queries model=sparse/0 images=photos cameras=queries.csv output=poses.txt

options and their defaults:
{options}
"""


@program(lambda: USAGE.format(options=describe(LocalizationOptions)), needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    if "=" in words[0] or words[0].startswith("--"):
        raise UsageError(Code.MISSING_IMAGE, "localize", f"got {words[0]} first", "see --help")
    run(options_from_words(LocalizationOptions, [f"query={words[0]}", *key_values(words[1:])]))
    return 0


def run(options: LocalizationOptions) -> None:
    """Localize what is asked for, tell it and write it, all that is known after each photograph;
    then raise what the first photograph that could not be read is told by."""
    queries = photographs(options.query)
    names = [name for name, _ in queries]
    table = read_cameras(options.cameras, names) if options.cameras else None
    scene = read_scene(options.model, options.images)
    if options.output:
        given = [*(path for _, path in queries), *(image.path for image in scene)]
        model = map(str, Path(options.model).iterdir())
        check_targets([options.output], [*given, *model, options.cameras or ""])
        require_one_word(names)
    localizer = Localizer(load_matcher(options.weights, options), scene, options.most)
    poses: list[str] = []
    fault = None
    for name, path in queries:
        try:
            size = load_image(path, **options.reading).size
            found = localizer.localize(path, camera_of(name, path, size, options, table))
        except MatcherError as error:
            if isinstance(error, UsageError) and error.code != Code.MISSING_FILE:
                raise  # Of its camera: no photograph may be to blame.
            tell(f"camera    {name}: cannot be read")
            fault = fault or error
            continue
        tell(told(name, found))
        if found is not None:
            numbers = [*found.quaternion, *found.pose[:3, 3]]
            poses.append(" ".join([name, *(f"{number:.9g}" for number in numbers)]) + "\n")
            write_poses(options.output, poses)
    tell(f"located   {len(poses)} of {len(queries)} photographs")
    if options.output:
        write_poses(options.output, poses)
        tell(f"output    {options.output}")
    if fault is not None:
        raise fault


def write_poses(path: str | None, poses: Iterable[str]) -> None:
    """Write the lines that are known so far, where they are asked for."""
    if path:
        write_atomically(path, "".join(poses).encode())


def require_one_word(names: Iterable[str]) -> None:
    """Refuse a name (E209) that a list of poses cannot hold."""
    for name in names:
        if len(name.split()) != 1:
            what, remedy = "cannot stand in a list of poses", "rename it: no spaces"
            raise UsageError(Code.NAME_NOT_EXPORTABLE, name, what, remedy)


def photographs(query: str) -> list[tuple[str, str]]:
    """The name and the path of each photograph.

    Raises:
        UsageError: there is no such file or folder, or no image in it (E111).
    """
    place = Path(query)
    if not place.is_dir():
        return [(place.name, query)]
    names = read_folder(query, warn=warn).names
    if not names:
        raise missing(query, "holds no image")
    return [(name, str(place / name)) for name in names]


def camera_of(
    name: str, path: str, size: Size, options: LocalizationOptions, table: CameraTable | None
) -> Camera:
    """What the options tell of the camera of a photograph."""
    if options.K:
        return Camera.of_matrix(rows_of(options.K), size)
    if options.cameras:
        return find_camera(table, name, path, size).camera
    return Camera.guessed(size)


def told(name: str, found: Location | None) -> str:
    """The pose of a photograph in a line."""
    if found is None:
        return f"camera    {name}: not found"
    center = ", ".join(f"{value:.4g}" for value in found.center)
    focal = "" if found.camera.focal_known else f", focal length {found.camera.focal[0]:.1f} pixels"
    return f"camera    {name}: at [{center}]{focal}, {found.inliers} of {found.points} points agree"


if __name__ == "__main__":
    sys.exit(main())
