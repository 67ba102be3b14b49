"""What the web page does with two uploads: match them, filter, fit, draw and locate a point."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from matcher.drawing.attention import draw_point
from matcher.drawing.matches import draw_coverage, draw_matches, draw_warp
from matcher.errors import MatcherError, UsageError
from matcher.geometry.cameras import Camera, Size
from matcher.images.cameras import camera_text, parse_camera
from matcher.images.exif import exif_camera
from matcher.images.load import read_rgb
from matcher.images.preprocess import MIN_SIDE
from matcher.options import MatchOptions
from matcher.pair import fitted, focal_source, pose_text
from matcher.predictor import Predictor, load_matcher
from matcher.results.record import ImageRecord, MatchRecord
from matcher.structures import Matches

WEIGHTS = ("compact", "outdoor", "indoor")
LOWEST = 0.02
"""Matches below are not kept; the slider filters the others without matching again."""
Cameras = tuple[Camera, Camera]
"""Of both images."""


class MatchedPair(NamedTuple):
    """What matching a pair gave, before the threshold."""

    image0: np.ndarray
    image1: np.ndarray
    weights: str
    max_side: int
    matches: Matches
    seconds: float


class Shown(NamedTuple):
    """What the page shows of it."""

    picture: np.ndarray
    coverage: np.ndarray
    warp: np.ndarray | None
    """None where no homography fits."""
    warp_text: str
    pose_text: str
    numbers: list[list[str]]
    record: MatchRecord


class Found(NamedTuple):
    """Where a point of image 0 is in image 1."""

    picture0: np.ndarray
    picture1: np.ndarray
    text: str


@lru_cache(maxsize=1)
def predictor(weights: str, max_side: int) -> Predictor:
    return load_matcher(weights, rotate="auto", max_side=max_side)


def options_of(
    weights: str, geometry: str, threshold: float, max_side: float, top_k: float,
    estimator: str,
) -> MatchOptions:  # fmt: skip
    """What the controls of the page say; a `top_k` of 0 is none.

    Raises:
        ValueError: no weights have the name.
        UsageError: what `MatchOptions` refuses.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"no weights {weights!r}")
    return MatchOptions(
        weights=weights,
        geometry=geometry,  # pyright: ignore[reportArgumentType]
        threshold=float(threshold),
        max_side=int(max_side),
        top_k=int(top_k) if top_k else None,
        estimator=estimator,  # pyright: ignore[reportArgumentType]
    )


def read_upload(path: str | None, number: int) -> np.ndarray:
    """(H, W, 3) of an uploaded file, upright.

    Raises:
        ValueError: there is none.
        MatcherError: as `read_rgb`, without the path on the server.
    """
    if path is None:
        raise ValueError(f"image {number} is missing")
    try:
        return read_rgb(path, apply_exif=True)
    except MatcherError as error:
        # What follows is about options that the page has not.
        remedy = error.remedy.partition(";")[0]
        raise type(error)(error.code, f"image {number}", error.what, remedy) from None


def size_of(image: np.ndarray) -> Size:
    return image.shape[1], image.shape[0]


def exif_text(path: str | None, number: int) -> str:
    """The camera of an upload, seen upright, as far as its EXIF tells the focal length; else
    empty. Errors as `read_upload`."""
    told = None if path is None else exif_camera(path)
    if told is None or not told.focal_known:
        return ""
    return pinhole_text(read_upload(path, number), told.focal[0].round(1))


def pinhole_text(image: np.ndarray, focal: float) -> str:
    """The camera of an image, as its field has it: a focal length in pixels, about its middle."""
    camera = Camera.guessed(size_of(image)).with_focal(focal)
    return camera_text(Camera.of_matrix(camera.K))


def cameras_of(texts: Sequence[str | None], images: Sequence[np.ndarray]) -> Cameras:
    """What the fields tell of the cameras of both images; of an empty one the focal length is not
    known.

    Raises:
        UsageError: a text is no camera, or one of an image of another shape (E201).
    """
    first, second = (
        _camera_of(text, f"camera {number}", size_of(image))
        for number, (text, image) in enumerate(zip(texts, images, strict=True))
    )
    return first, second


def _camera_of(text: str | None, name: str, size: Size) -> Camera:
    camera = parse_camera(text or "", name)
    try:
        return Camera.guessed(size) if camera is None else camera.resized(size)
    except UsageError as error:
        raise UsageError(error.code, name, error.what, error.remedy) from None


def find(image0: np.ndarray, image1: np.ndarray, options: MatchOptions) -> MatchedPair:
    """Match two uploads; errors as `Predictor.match`."""
    side = options.max_side or max(*image0.shape, *image1.shape)
    matcher = predictor(options.weights, side)
    started = time.perf_counter()
    matches = matcher.match(image0, image1, threshold=LOWEST)
    seconds = time.perf_counter() - started
    return MatchedPair(image0, image1, options.weights, side, matches, seconds)


def show(pair: MatchedPair, options: MatchOptions, cameras: Cameras) -> Shown:
    """Pictures and numbers of the matches that the options leave."""
    matches = pair.matches.above(options.threshold or 0.0)
    matches = matches.top(options.top_k) if options.top_k else matches
    images = pair.image0, pair.image1
    named = [ImageRecord(f"image{i}", *size_of(image)) for i, image in enumerate(images)]
    plain = MatchRecord(matches, named[0], named[1])
    record = fitted(plain, options, cameras)
    warp, warp_text = warped(images, plain, options)
    scores = matches.numpy()[2]
    inliers = record.inliers
    numbers = [
        ["matches", str(len(matches))],
        ["median confidence", f"{np.median(scores):.2f}" if len(scores) else "-"],
        ["inliers", "-" if inliers is None else str(int(inliers.sum()))],
        ["seconds", f"{pair.seconds:.1f}"],
    ]
    picture, coverage = (
        draw_matches(*images, matches, inliers=inliers),
        draw_coverage(*images, matches),
    )
    pose = posed(plain, options, cameras)
    return Shown(picture, coverage, warp, warp_text, pose, numbers, record)


def warped(
    images: Sequence[np.ndarray], plain: MatchRecord, options: MatchOptions
) -> tuple[np.ndarray | None, str]:
    """Image 1 laid over image 0 by the homography that most matches agree with, and how many."""
    options = replace(options, geometry="homography")
    record = fitted(plain, options)
    if record.model is None or record.inliers is None:
        return None, "No homography fits these matches."
    agree = f"{int(record.inliers.sum())} of {len(plain.matches)} matches agree with one plane"
    return draw_warp(images[0], images[1], record.model), f"{agree}: **{record.verdict}**."


def posed(plain: MatchRecord, options: MatchOptions, cameras: Cameras) -> str:
    """The motion of the camera, and its focal lengths."""
    options = replace(options, geometry="pose")
    record = fitted(plain, options, cameras)
    if record.T_0to1 is None or record.cameras is None or record.verdict != "reliable":
        return f"**{record.verdict}**: there is no pose to trust."
    rows = "\n".join("  ".join(f"{value:9.6f}" for value in row) for row in record.T_0to1)
    text = pose_text(record.T_0to1, record.translation_unknown)
    focal = "; ".join(
        f"{c.focal[0]:.1f} pixels ({focal_source(c, record.translation_unknown)}) of image {i}"
        for i, c in enumerate(record.cameras)
    )
    matrix = f"`T_0to1`, which takes camera 0 to camera 1:\n\n```\n{rows}\n```"
    return f"**{record.verdict}**: {text}\n\nFocal length: {focal}.\n\n{matrix}"


def find_point(pair: MatchedPair, point: Sequence[float]) -> Found:
    """Where a point (x, y) of image 0 is in image 1.

    Raises:
        MatcherError: as `Predictor.locate`.
    """
    matcher = predictor(pair.weights, pair.max_side)
    located = matcher.locate(pair.image0, pair.image1, [point])
    (x, y), (x1, y1) = point, located.points1[0].tolist()
    picture0, text = draw_point(pair.image0, point), f"({x:.0f}, {y:.0f}) of image 0"
    if not located.visible[0]:
        return Found(picture0, pair.image1, f"{text} is **not visible** in image 1.")
    confidence = float(located.confidence[0])
    where = f"at **({x1:.1f}, {y1:.1f})** of image 1, confidence {confidence:.2f}."
    return Found(picture0, draw_point(pair.image1, (x1, y1)), f"{text} is {where}")


def verdict_text(shown: Shown) -> str:
    """The numbers and the verdict, as Markdown."""
    numbers = ", ".join(f"{value} {what}" for what, value in shown.numbers if value != "-")
    if turned := shown.record.matches.turned:
        numbers += f", image 1 turned by {90 * turned} degrees counterclockwise"
    if shown.record.matches.reason == "too_small":
        numbers += f", an image is smaller than {MIN_SIDE} pixels"
    why = (
        "" if shown.record.verdict == "reliable" else " (wrong matches can agree as well as these)"
    )
    return f"**{numbers}: {shown.record.verdict}**{why}"
