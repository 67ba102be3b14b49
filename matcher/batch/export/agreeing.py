"""Matches of pairs that one homography explains, as flat ground, far scenes and turns give them."""

from __future__ import annotations

from collections.abc import Iterator

from matcher.batch.export.keypoints import PairMatches, pair_matches
from matcher.batch.run import Run
from matcher.geometry.robust import Estimator, estimate_homography
from matcher.geometry.verdict import judge_model

THRESHOLD = 3.0
"""Pixels that a match may be off the homography: lenses and hills bend it."""


def agreeing_pairs(run: Run, converged_only: bool = False) -> Iterator[PairMatches]:
    """Pairs of a finished run whose verdict is reliable, with their inliers alone, best first;
    raises as `pair_matches`."""
    for pair in pair_matches(run, converged_only):
        if pair.image0 == pair.image1:
            continue
        points = pair.keypoints0, pair.keypoints1
        found = estimate_homography(*points, estimator=Estimator(threshold=THRESHOLD))
        if found is None:
            continue
        verdict = judge_model(*points, found.matrix, kind="homography", threshold=THRESHOLD)
        if verdict.reliable:
            kept = (-pair.scores).argsort(kind="stable")
            kept = kept[found.inliers[kept]]
            columns = pair.keypoints0[kept], pair.keypoints1[kept], pair.scores[kept]
            yield PairMatches(pair.image0, pair.image1, *columns)
