"""Disparity of a rectified pair from the command line.

    python -m matcher.tasks.stereo LEFT RIGHT [output=disparity.pfm] [picture=picture.png]
        [focal=PIXELS baseline=LENGTH] [offset=PIXELS] [cloud=points.ply]
        [weights=FILE] [device=cpu] [check=true]

`output` is a .pfm, a .png in KITTI's form or an .npz with occlusion (and depth, where `focal` and
`baseline` are given). `cloud` needs both; its unit is that of `baseline`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, fields
from difflib import get_close_matches
from io import BytesIO

import numpy as np
from PIL import Image

from matcher.errors import MatcherError, UsageError
from matcher.files import write_atomically
from matcher.images.load import read_rgb
from matcher.tasks.stereo.files import require_suffix, write_disparity, write_ply
from matcher.tasks.stereo.picture import draw_disparity
from matcher.tasks.stereo.predictor import Disparity, StereoPredictor


@dataclass(frozen=True)
class StereoOptions:
    """What one call asks for."""

    left: str
    right: str
    output: str = "disparity.pfm"
    picture: str = ""
    """Where a picture is written; empty: none."""
    focal: float = 0.0
    """Focal length in pixels; 0: unknown."""
    baseline: float = 0.0
    """Distance of the cameras, in the unit of depth; 0: unknown."""
    offset: float = 0.0
    """Right minus left principal column in pixels (Middlebury's doffs)."""
    cloud: str = ""
    """Where points are written; empty: nowhere."""
    weights: str = ""
    """Weights file; empty: the bundled one."""
    device: str = ""
    """Empty: a CUDA device where there is one."""
    check: bool = True
    """Refuse what cannot be a rectified pair."""

    def __post_init__(self) -> None:
        require_suffix(self.output)
        for name in ("focal", "baseline"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UsageError(201, name, f"got {getattr(self, name)!r}", "give a length above 0")
        if self.cloud and not self.metric:
            raise UsageError(201, "cloud", "depth is unknown", "give focal= and baseline= too")
        if bool(self.focal) != bool(self.baseline):
            raise UsageError(201, "focal", "only one of focal and baseline", "give both")

    @property
    def metric(self) -> bool:
        """Whether disparity can be turned into depth."""
        return self.focal > 0 and self.baseline > 0


def read_options(words: list[str]) -> StereoOptions:
    """The options that the words of a command line give.

    Raises:
        UsageError: not two images, an unknown option or a value of another type (E201).
    """
    kinds = {f.name: f.type for f in fields(StereoOptions)}
    images = [word for word in words if word.split("=")[0] not in kinds]
    unknown = next((w for w in images if "=" in w), None)
    if unknown is not None and len(images) > 2:
        name = unknown.split("=")[0]
        near = get_close_matches(name, kinds, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(kinds)}"
        raise UsageError(201, name, "no such option", hint)
    if len(images) != 2:
        usage = "python -m matcher.tasks.stereo LEFT RIGHT [output=disparity.pfm] [picture=FILE]"
        raise UsageError(201, "images", f"got {len(images)} images, not 2", usage)
    values: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if equals and name in kinds:
            values[name] = _value(name, text, str(kinds[name]))
    return StereoOptions(images[0], images[1], **values)  # pyright: ignore[reportArgumentType]


def run(options: StereoOptions) -> str:
    """Match the pair, write what is asked for and tell it in a line."""
    predictor = StereoPredictor(options.weights or None, options.device or None)
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


def main(words: list[str] | None = None) -> int:
    """The exit status."""
    words = sys.argv[1:] if words is None else words
    if not words or {"-h", "--help"} & set(words):
        sys.stdout.write(f"{__doc__}\n")
        return 0
    try:
        sys.stdout.write(f"{run(read_options(words))}\n")
    except MatcherError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _value(name: str, text: str, kind: str) -> object:
    if kind == "bool":
        if text not in ("true", "false"):
            raise UsageError(201, name, f"got {text!r}", "expected true or false")
        return text == "true"
    if kind == "float":
        try:
            return float(text)
        except ValueError:
            raise UsageError(201, name, f"got {text!r}", "expected a number") from None
    return text


def _write_picture(path: str, picture: np.ndarray) -> None:
    buffer = BytesIO()
    kind = "JPEG" if path.lower().endswith((".jpg", ".jpeg")) else "PNG"
    Image.fromarray(picture).save(buffer, format=kind, quality=92)
    write_atomically(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main())
