"""Disparity of a rectified pair: `python -m matcher.tasks.stereo LEFT RIGHT [key=value ...]`."""

from __future__ import annotations

import sys
import time
from io import BytesIO
from typing import Annotated

import numpy as np
from PIL import Image
from pydantic import Field

from matcher.errors import Code, UsageError, program
from matcher.files import write_atomically
from matcher.images.load import read_rgb
from matcher.options import Device
from matcher.tasks.stereo.files import require_suffix, write_disparity, write_ply
from matcher.tasks.stereo.picture import draw_disparity
from matcher.tasks.stereo.predictor import Disparity, StereoPredictor
from matcher.validation.checked import Name, annotations_of, checked, unknown_option
from matcher.validation.words import describe, key_values, options_from_words

USAGE = """\
usage: python -m matcher.tasks.stereo LEFT RIGHT [key=value ...] [--debug]

Finds disparity and occlusion of the left image of a rectified pair.

examples:
  python -m matcher.tasks.stereo left.png right.png output=disparity.pfm picture=picture.png
  python -m matcher.tasks.stereo left.png right.png focal=1000 baseline=0.1 cloud=points.ply

options and their defaults:
{options}
"""
Length = Annotated[float, Field(ge=0, description="a number of at least 0")]


@checked()
class StereoOptions:
    """What one call asks for."""

    left: Name
    """Left image of a rectified pair."""
    right: Name
    """Right image of it."""
    output: Name = "disparity.pfm"
    """A .pfm, a .png in KITTI's form, or an .npz with occlusion, and with depth where `focal` and
    `baseline` are given."""
    picture: str = ""
    """Where a picture is written; empty: none."""
    focal: Length = 0.0
    """Focal length in pixels; 0: unknown."""
    baseline: Length = 0.0
    """Distance of the cameras, in the unit of depth; 0: unknown."""
    offset: float = 0.0
    """Right minus left principal column in pixels (Middlebury's doffs)."""
    cloud: str = ""
    """Where points are written, in the unit of `baseline`; empty: nowhere."""
    weights: str = ""
    """Weights file; empty: the bundled one."""
    device: Device | None = None
    """cpu, cuda, cuda:1 or mps; null: cuda where there is one, else cpu."""
    check: bool = True
    """Refuse what cannot be a rectified pair."""

    def __post_init__(self) -> None:
        require_suffix(self.output)
        if self.cloud and not self.metric:
            raise UsageError(
                Code.INVALID_VALUE, "cloud", "depth is unknown", "give focal= and baseline= too"
            )
        if bool(self.focal) != bool(self.baseline):
            raise UsageError(
                Code.INVALID_VALUE, "focal", "only one of focal and baseline", "give both"
            )

    @property
    def metric(self) -> bool:
        """Whether disparity can be turned into depth."""
        return self.focal > 0 and self.baseline > 0


def read_options(words: list[str]) -> StereoOptions:
    """The options that the words of a command line give.

    Raises:
        UsageError: not two images (E200), an unknown option (E202) or a value that cannot work
            (E201).
    """
    words = key_values(words)
    known = list(annotations_of(StereoOptions))
    images = [word for word in words if word.partition("=")[0] not in known]
    unknown = next((word for word in images if "=" in word), None)
    if unknown is not None and len(images) > 2:
        raise unknown_option(unknown.partition("=")[0], known)
    if len(images) != 2:
        usage = "python -m matcher.tasks.stereo LEFT RIGHT [key=value ...]"
        raise UsageError(Code.MISSING_IMAGE, "images", f"got {len(images)} images, not 2", usage)
    options = [word for word in words if word not in images]
    views = (f"left={images[0]}", f"right={images[1]}")
    return options_from_words(StereoOptions, [*views, *options])


def run(options: StereoOptions) -> str:
    """Match the pair, write what is asked for and tell it in a line."""
    predictor = StereoPredictor(options.weights or None, options.device)
    start = time.perf_counter()
    found = predictor.match(options.left, options.right, check=options.check)
    seconds = time.perf_counter() - start
    written = [options.output]
    others = {"occlusion": found.occlusion}
    if options.metric:
        others["depth"] = found.depth(options.focal, options.baseline, options.offset)
    write_disparity(options.output, found.disparity, **others)
    if options.picture:
        _write_picture(options.picture, draw_disparity(read_rgb(options.left), found))
        written.append(options.picture)
    if options.cloud:
        points, colors = to_points(found, read_rgb(options.left), options)
        write_ply(options.cloud, points, colors)
        written.append(options.cloud)
    low, high = np.percentile(found.disparity, (1, 99))
    return (
        f"{found.disparity.shape[1]} x {found.disparity.shape[0]}, disparity {low:.1f} to "
        f"{high:.1f} px, {found.occluded.mean():.0%} occluded, {seconds:.1f} s: "
        f"{', '.join(written)}"
    )


def to_points(
    found: Disparity, left: np.ndarray, options: StereoOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) points of what both views see, x right, y down, z ahead of the left camera, and their
    (N, 3) uint8 colors; the principal point is taken to be the center."""
    depth = found.depth(options.focal, options.baseline, options.offset)
    y, x = np.nonzero(depth)
    z = depth[y, x]
    height, width = depth.shape
    ray = np.stack([x - (width - 1) / 2, y - (height - 1) / 2, np.full(len(x), options.focal)], 1)
    return ray / options.focal * z[:, None], left[y, x]


@program
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    if not words or {"-h", "--help"} & set(words):
        sys.stdout.write(USAGE.format(options=describe(StereoOptions)))
        return 0
    sys.stdout.write(f"{run(read_options(words))}\n")
    return 0


def _write_picture(path: str, picture: np.ndarray) -> None:
    buffer = BytesIO()
    kind = "JPEG" if path.lower().endswith((".jpg", ".jpeg")) else "PNG"
    Image.fromarray(picture).save(buffer, format=kind, quality=92)
    write_atomically(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main())
