"""What the web page does with two uploads: match them, filter, fit and draw."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from matcher.drawing.matches import draw_coverage, draw_matches
from matcher.geometry.robust import (
    Estimator,
    ModelEstimate,
    estimate_fundamental,
    estimate_homography,
)
from matcher.geometry.verdict import judge, judge_model
from matcher.options import PredictorOptions
from matcher.predictor import Predictor, load_matcher
from matcher.results.record import ImageRecord, MatchRecord
from matcher.structures import Matches

WEIGHTS = ("compact", "outdoor", "indoor")
GEOMETRIES = ("none", "fundamental", "homography")
LOWEST = 0.02
"""Matches below are not kept; the slider filters the others without matching again."""


class MatchedPair(NamedTuple):
    """What matching a pair gave, before the threshold."""

    image0: np.ndarray
    image1: np.ndarray
    weights: str
    matches: Matches
    seconds: float


class Shown(NamedTuple):
    """What the page shows of it."""

    picture: np.ndarray
    coverage: np.ndarray
    numbers: list[list[str]]
    record: MatchRecord


@lru_cache(maxsize=1)
def predictor(weights: str) -> Predictor:
    return load_matcher(weights, rotate="auto")


def find(image0: np.ndarray | None, image1: np.ndarray | None, weights: str) -> MatchedPair:
    """Match two uploads.

    Raises:
        ValueError: an image is missing or has too many pixels, or no weights have the name.
        MatcherError: as `Predictor.match`.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"no weights {weights!r}")
    limit = PredictorOptions().max_pixels
    image0, image1 = (checked(image, n, limit) for n, image in enumerate((image0, image1)))
    matcher = predictor(weights)
    started = time.perf_counter()
    matches = matcher.match(image0, image1, threshold=LOWEST)
    return MatchedPair(image0, image1, weights, matches, time.perf_counter() - started)


def checked(image: np.ndarray | None, number: int, limit: int) -> np.ndarray:
    if image is None:
        raise ValueError(f"image {number} is missing")
    if image.shape[0] * image.shape[1] > limit:
        raise ValueError(f"image {number} has more than {limit // 10**6} million pixels")
    return image


def show(pair: MatchedPair, threshold: float, geometry: str) -> Shown:
    """Pictures and numbers of the matches above a threshold."""
    matches = pair.matches.above(threshold)
    points0, points1, scores = matches.numpy()
    fits = {"fundamental": estimate_fundamental, "homography": estimate_homography}
    model = fits[geometry](points0, points1) if geometry in fits else None
    inliers = None if model is None else model.inliers
    numbers = [
        ["matches", str(len(matches))],
        ["median confidence", f"{np.median(scores):.2f}" if len(scores) else "-"],
        ["inliers", "-" if inliers is None else str(int(inliers.sum()))],
        ["seconds", f"{pair.seconds:.1f}"],
    ]
    images = pair.image0, pair.image1
    record = MatchRecord(
        matches,
        *(ImageRecord(f"image{i}", *image.shape[1::-1]) for i, image in enumerate(images)),
        geometry="none" if model is None else geometry,
        model=None if model is None else model.matrix,
        inliers=inliers,
        verdict=judged(matches, geometry, model),
    )
    picture = draw_matches(*images, matches, inliers=inliers)
    return Shown(picture, draw_coverage(*images, matches), numbers, record)


def judged(matches: Matches, geometry: str, model: ModelEstimate | None) -> str:
    """The word of the verdict about what is shown."""
    if geometry != "homography" or model is None:
        return judge(matches).word
    points0, points1, _ = matches.numpy()
    limit = Estimator().threshold
    return judge_model(points0, points1, model.matrix, kind="homography", threshold=limit).word
