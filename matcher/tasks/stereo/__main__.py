"""Disparity of a rectified pair: `python -m matcher.tasks.stereo LEFT RIGHT [key=value ...]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from matcher.files import check_targets, write_atomically
from matcher.images.encode import encode
from matcher.images.load import read_rgb
from matcher.images.opening import unchanged
from matcher.interop.point_cloud import write_ply
from matcher.tasks.stereo.files import write_disparity
from matcher.tasks.stereo.options import StereoOptions
from matcher.tasks.stereo.photographs import (
    RectifiedPair,
    read_photograph,
    rectify_photographs,
)
from matcher.tasks.stereo.picture import disparity_range, draw_disparity, draw_views
from matcher.tasks.stereo.predictor import Disparity, StereoPredictor
from matcher.terminal.program import program
from matcher.validation.words import describe, options_and_images

USAGE = """\
usage: python -m matcher.tasks.stereo LEFT RIGHT [key=value ...] [--debug]

Finds disparity and occlusion of the left image of a rectified pair; with rectify=true of any two
photographs of a scene, from different places.

examples:
  python -m matcher.tasks.stereo left.png right.png output=disparity.pfm picture=picture.png
  python -m matcher.tasks.stereo left.png right.png focal=1000 baseline=0.1 cloud=points.ply
  python -m matcher.tasks.stereo a.jpg b.jpg rectify=true cloud=points.ply picture=picture.png

options and their defaults:
{options}
"""


def read_options(words: list[str]) -> StereoOptions:
    """The options that the words of a command line give; errors as `options_and_images`."""
    usage = "python -m matcher.tasks.stereo LEFT RIGHT [key=value ...]"
    return options_and_images(StereoOptions, words, ("left", "right"), usage)


def run(options: StereoOptions) -> str:
    """Match the pair, write what is asked for and tell it in a line."""
    asked = (options.output, options.picture, options.cloud, options.views)
    targets = [path for path in asked if path]
    check_targets(targets, [options.left, options.right, options.weights])
    predictor = StereoPredictor(options.weights or None, options.device)
    start = time.perf_counter()
    if options.rectify:
        told = run_photographs(options, predictor)
    else:
        told = run_pair(options, predictor)
    return f"{told}, {time.perf_counter() - start:.1f} s: {', '.join(targets)}"


def run_pair(options: StereoOptions, predictor: StereoPredictor) -> str:
    """Match a rectified pair."""
    with unchanged(options.left, options.right):
        found = predictor.match(options.left, options.right, check=options.check)
        left = read_rgb(options.left)
    depth = None
    if options.metric:
        depth = found.depth(options.focal, options.baseline, options.offset)
    _write(options, found, left, depth)
    if options.cloud and depth is not None:
        write_ply(options.cloud, *to_points(depth, left, options.focal))
    return describe_disparity(found)


def run_photographs(options: StereoOptions, predictor: StereoPredictor) -> str:
    """Rectify two photographs and match their views."""
    photographs = [
        read_photograph(path, options.side, own or options.K, options.focal)
        for path, own in ((options.left, options.K0), (options.right, options.K1))
    ]
    pair = rectify_photographs(*photographs, device=options.device)
    found = pair.told(predictor.match(pair.left, pair.right, check=False))
    how, baseline = pair.rectification, options.baseline or 1.0
    depth = found.depth(how.focal, baseline, how.offset)
    _write(options, found, pair.left, depth)
    if options.views:
        _write_picture(options.views, draw_views(pair.left, pair.right))
    if options.cloud:
        points, seen = how.points(depth, baseline)
        write_ply(options.cloud, points, pair.left[seen])
    told = describe_rectification(pair, options)
    known = depth[depth > 0]
    unit = "" if options.baseline else " baselines (scale unknown)"
    middle = f"median depth {np.median(known):.3g}{unit}" if known.size else "no depth"
    agreement = f"{pair.agreement(found):.0%} of the matches within 3 px of it"
    return f"{told}; {describe_disparity(found)}, {agreement}; {middle}"


def describe_disparity(found: Disparity) -> str:
    """Size, range and occlusion in words."""
    low, high = disparity_range(found)
    return (
        f"{found.disparity.shape[1]} x {found.disparity.shape[0]}, disparity {low:.1f} to "
        f"{high:.1f} px, {found.occluded.mean():.0%} occluded"
    )


def describe_rectification(pair: RectifiedPair, options: StereoOptions) -> str:
    """What the rectification rests on, in words."""
    left = options.right if pair.rectification.swapped else options.left
    assumed = ", focal length assumed"
    if options.focal or options.K or (options.K0 and options.K1):
        assumed = ""
    return (
        f"{len(pair.points[0])} of {pair.matches} matches agree{assumed}, their rows to "
        f"{pair.row_error:.2f} px, left view of {left}"
    )


def to_points(depth: np.ndarray, left: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) points of (H, W) depth where it is known, x right, y down, z ahead of the left camera,
    and their (N, 3) uint8 colors; the principal point is taken to be the center."""
    y, x = np.nonzero(depth)
    z = depth[y, x]
    height, width = depth.shape
    ray = np.stack([x - (width - 1) / 2, y - (height - 1) / 2, np.full(len(x), focal)], 1)
    return ray / focal * z[:, None], left[y, x]


@program(lambda: USAGE.format(options=describe(StereoOptions)), needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    sys.stdout.write(f"{run(read_options(words))}\n")
    return 0


def _write(
    options: StereoOptions, found: Disparity, left: np.ndarray, depth: np.ndarray | None
) -> None:
    others = {} if depth is None else {"depth": depth}
    write_disparity(options.output, found.disparity, occlusion=found.occlusion, **others)
    if options.picture:
        _write_picture(options.picture, draw_disparity(left, found))


def _write_picture(path: str, picture: np.ndarray) -> None:
    write_atomically(path, encode(picture, Path(path).suffix.lower()))


if __name__ == "__main__":
    sys.exit(main())
