"""Whether matches tell anything: the verdict about a pair.

A model is fitted to whatever it gets, so even random matches have inliers. The verdict compares
their number with chance. Chance is measured: the share of wrong pairings (a point of image 0 with
the partner of another one) that fit the model too, which sees where in the images the points
lie. How rarely as many inliers come about so is bounded by the number of false alarms of
a-contrario RANSAC (Moisan and Stival, IJCV 2004):

    NFA = models (N - s) C(N, k) C(k, s) chance^(k - s)

for k inliers among N matches and samples of s. Of matches that lie close together in either image,
which say the same, one counts. Independent matches stay far above 1. Those of two unrelated
photographs are not independent, since a network finds rows and patches that look alike; the limit
lies below what they reach (see `LIMIT`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from matcher.geometry.epipolar import sampson_error
from matcher.geometry.robust import Estimator, estimate_fundamental, estimate_homography
from matcher.structures import Matches

Kind = Literal["fundamental", "essential", "homography"]
Word = Literal["reliable", "too few to tell"]

LIMIT = -20.0
"""Log10 of the NFA of a reliable pair, at most. Over 590 pairs of unrelated photographs the bundled
weights reached -10.5; each of 55 pairs of one scene was below -37."""
SAMPLE: dict[Kind, tuple[int, int]] = {
    "fundamental": (7, 3),
    "essential": (5, 10),
    "homography": (4, 1),
}
"""Matches of a minimal sample, and models that it can give."""
CELLS = 128
"""Cells along the diagonal of the points; matches in one cell say the same."""
WRONG_PAIRINGS = 20_000
FLAT_THRESHOLD = 3.0
"""Transfer error in thresholds below which a homography explains an inlier: it errs in two
directions where the epipolar line errs in one."""
FLAT_SHARE = 0.8
"""Share of the inliers that a homography explains where nothing is known of the translation."""


@dataclass(frozen=True)
class Verdict:
    """What the matches of a pair tell."""

    word: Word
    inliers: int
    chance: float
    """Share of wrong pairings that fit the model as well."""
    log_nfa: float
    """Log10 of the number of false alarms: the lower, the surer."""
    flat_share: float | None = None
    """Share of the inliers that one homography explains; None for a homography or no model."""

    @property
    def reliable(self) -> bool:
        return self.word == "reliable"

    @property
    def translation_unknown(self) -> bool:
        """Whether a homography explains as much: pure rotation, or a plane."""
        return self.reliable and self.flat_share is not None and self.flat_share >= FLAT_SHARE

    def __str__(self) -> str:
        tail = "; translation is unknown (pure rotation or plane)"
        return self.word + (tail if self.translation_unknown else "")


NOTHING = Verdict("too few to tell", 0, 1.0, math.inf)


def judge(matches: Matches, *, estimator: Estimator | None = None) -> Verdict:
    """The verdict about the matches of a pair, as `judge_matches`."""
    return judge_matches(*matches.numpy()[:2], estimator=estimator)


def judge_matches(
    keypoints0: np.ndarray, keypoints1: np.ndarray, *, estimator: Estimator | None = None
) -> Verdict:
    """The verdict about matches without a model: a fundamental matrix is fitted.

    Args:
        keypoints0, keypoints1: (N, 2) pixels.
        estimator: how; by default as `estimate_fundamental` does.
    """
    estimator = estimator or Estimator()
    found = estimate_fundamental(keypoints0, keypoints1, estimator=estimator)
    matrix = None if found is None else found.matrix
    return judge_model(
        keypoints0, keypoints1, matrix, kind="fundamental", threshold=estimator.threshold
    )


def judge_model(
    keypoints0: np.ndarray,
    keypoints1: np.ndarray,
    matrix: np.ndarray | None,
    *,
    kind: Kind,
    threshold: float,
) -> Verdict:
    """The verdict about matches by a model that was fitted to them.

    Args:
        keypoints0, keypoints1: (N, 2) pixels.
        matrix: (3, 3) in pixels: a fundamental matrix (also for ``essential``: K1^-T E K0^-1) or a
            homography from image 0 to image 1; None where none was found.
        kind: what was fitted.
        threshold: pixels, at which it was fitted.
    """
    points0, points1 = (np.asarray(k, dtype=np.float64) for k in (keypoints0, keypoints1))
    sample, models = SAMPLE[kind]
    if matrix is None or len(points0) <= sample:
        return NOTHING
    inliers = _errors(matrix, points0, points1, kind) <= threshold
    k = int(inliers.sum())
    chance = _chance(matrix, points0, points1, kind, threshold)
    apart = _apart(points0, points1)
    log_nfa = _log_nfa(len(apart), int(inliers[apart].sum()), sample, models, chance)
    if not log_nfa <= LIMIT:
        return Verdict("too few to tell", k, chance, log_nfa)
    flat = None
    if kind != "homography":
        flat = _flat_share(points0[inliers], points1[inliers], threshold)
    return Verdict("reliable", k, chance, log_nfa, flat)


def _errors(matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray, kind: Kind) -> np.ndarray:
    """(N,) pixels: Sampson distance, or transfer error of a homography."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if kind != "homography":
            return sampson_error(points0, points1, matrix)
        moved = np.column_stack([points0, np.ones(len(points0))]) @ matrix.T
        return np.linalg.norm(moved[:, :2] / moved[:, 2:] - points1, axis=1)


def _apart(points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
    """Indices of matches of which no two share a cell of image 0, or one of image 1."""
    chosen = np.arange(len(points0))
    for points in (points0, points1):
        cell = max(float(np.linalg.norm(np.ptp(points, axis=0))) / CELLS, 1e-9)
        cells = np.floor(points[chosen] / cell)
        chosen = chosen[np.sort(np.unique(cells, axis=0, return_index=True)[1])]
    return chosen


def _chance(
    matrix: np.ndarray, points0: np.ndarray, points1: np.ndarray, kind: Kind, threshold: float
) -> float:
    """Share of wrong pairings within the threshold.

    A few points make few pairings, so it is at least the area of the band of tolerance in the
    box around the points of image 1.
    """
    draw = np.random.default_rng(0)
    n = len(points0)
    first = draw.integers(0, n, WRONG_PAIRINGS)
    other = (first + draw.integers(1, n, WRONG_PAIRINGS)) % n
    fits = _errors(matrix, points0[first], points1[other], kind) <= threshold
    area = max(float(np.prod(np.ptp(points1, axis=0))), 1.0)
    disk, band = math.pi * threshold**2 / area, 2 * threshold / math.sqrt(area)
    floor = disk if kind == "homography" else band
    return min(1.0, max(float(fits.mean()), floor))


def _log_nfa(n: int, k: int, sample: int, models: int, chance: float) -> float:
    """Log10 of the number of false alarms."""
    if k <= sample:
        return math.inf

    def choose(a: int, b: int) -> float:
        return math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(a - b + 1)

    tests = math.log(models * (n - sample)) + choose(n, k) + choose(k, sample)
    return (tests + (k - sample) * math.log(chance)) / math.log(10)


def _flat_share(points0: np.ndarray, points1: np.ndarray, threshold: float) -> float:
    """Share of the inliers of an epipolar model that one homography explains."""
    limit = FLAT_THRESHOLD * threshold
    found = estimate_homography(points0, points1, estimator=Estimator(threshold=limit))
    if found is None:
        return 0.0
    return float((_errors(found.matrix, points0, points1, "homography") <= limit).mean())
