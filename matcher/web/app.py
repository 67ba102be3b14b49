"""What the web page does with two uploads: match them, filter, fit, draw and locate a point."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from matcher.drawing.attention import draw_point
from matcher.drawing.matches import draw_coverage, draw_matches, draw_warp
from matcher.options import INTRINSICS, MatchOptions, PredictorOptions
from matcher.pair import judged, pose_text, with_model
from matcher.predictor import Predictor, load_matcher
from matcher.results.record import ImageRecord, MatchRecord
from matcher.structures import Matches
from matcher.validation.checked import invalid

WEIGHTS = ("compact", "outdoor", "indoor")
LOWEST = 0.02
"""Matches below are not kept; the slider filters the others without matching again."""
WITHOUT_K = "Give `K` under *More settings*: focal lengths and center of both images in pixels."


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
    estimator: str, K: str,
) -> MatchOptions:  # fmt: skip
    """What the controls of the page say; a `top_k` of 0 and an empty `K` are none.

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
        K=read_intrinsics(K),
    )


def read_intrinsics(text: str) -> tuple[float, ...] | None:
    """The numbers of `K`, with or without brackets; None for no text. E201 for other words."""
    words = re.split(r"[,\s]+", text.strip("[] \t\n"))
    try:
        return tuple(map(float, words)) if words != [""] else None
    except ValueError as error:
        raise invalid("K", text, INTRINSICS) from error


def find(
    image0: np.ndarray | None, image1: np.ndarray | None, options: MatchOptions
) -> MatchedPair:
    """Match two uploads.

    Raises:
        ValueError: an image is missing or has too many pixels.
        MatcherError: as `Predictor.match`.
    """
    limit = PredictorOptions().max_pixels
    image0, image1 = (checked(image, n, limit) for n, image in enumerate((image0, image1)))
    side = options.max_side or max(*image0.shape, *image1.shape)
    matcher = predictor(options.weights, side)
    started = time.perf_counter()
    matches = matcher.match(image0, image1, threshold=LOWEST)
    seconds = time.perf_counter() - started
    return MatchedPair(image0, image1, options.weights, side, matches, seconds)


def checked(image: np.ndarray | None, number: int, limit: int) -> np.ndarray:
    if image is None:
        raise ValueError(f"image {number} is missing")
    if image.shape[0] * image.shape[1] > limit:
        raise ValueError(f"image {number} has more than {limit // 10**6} million pixels")
    return image


def show(pair: MatchedPair, options: MatchOptions) -> Shown:
    """Pictures and numbers of the matches that the options leave."""
    matches = pair.matches.above(options.threshold or 0.0)
    matches = matches.top(options.top_k) if options.top_k else matches
    images = pair.image0, pair.image1
    named = [ImageRecord(f"image{i}", *image.shape[1::-1]) for i, image in enumerate(images)]
    plain = MatchRecord(matches, named[0], named[1])
    record = judged(with_model(plain, options), options)
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
    return Shown(picture, coverage, warp, warp_text, posed(plain, options), numbers, record)


def warped(
    images: Sequence[np.ndarray], plain: MatchRecord, options: MatchOptions
) -> tuple[np.ndarray | None, str]:
    """Image 1 laid over image 0 by the homography that most matches agree with, and how many."""
    options = replace(options, geometry="homography")
    record = judged(with_model(plain, options), options)
    if record.model is None or record.inliers is None:
        return None, "No homography fits these matches."
    agree = f"{int(record.inliers.sum())} of {len(plain.matches)} matches agree with one plane"
    return draw_warp(images[0], images[1], record.model), f"{agree}: **{record.verdict}**."


def posed(plain: MatchRecord, options: MatchOptions) -> str:
    """The motion of the camera, where `K` is known."""
    if options.K is None:
        return WITHOUT_K
    options = replace(options, geometry="essential")
    record = judged(with_model(plain, options), options)
    if record.T_0to1 is None or record.verdict != "reliable":
        return f"**{record.verdict}**: there is no pose to trust."
    rows = "\n".join("  ".join(f"{value:9.6f}" for value in row) for row in record.T_0to1)
    text = pose_text(record.T_0to1, record.translation_unknown)
    matrix = f"`T_0to1`, which takes camera 0 to camera 1:\n\n```\n{rows}\n```"
    return f"**{record.verdict}**: {text}\n\n{matrix}"


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
    why = (
        "" if shown.record.verdict == "reliable" else " (wrong matches can agree as well as these)"
    )
    return f"**{numbers}: {shown.record.verdict}**{why}"
