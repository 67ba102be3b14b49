"""More than one look at a pair: image 1 turned, and the part that both show from closer by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from matcher.images.preprocess import PairReader, PreparedPair
from matcher.structures import Matches

ENOUGH = 100
"""Inliers of a reliable pair above which ``rotate=auto`` looks no further."""
FEW = 0.25
"""Matches for each cell of the smaller image up to which ``zoom=auto`` looks closer."""
TELLING = 300
"""Best matches that tell of most pairs that they are reliable, in a fifth of the time of all."""


Look = Callable[[PreparedPair], Matches]
"""Matches of a pair as it is prepared."""


def best_turn(
    found: Matches,
    pair: PreparedPair,
    turns: Literal["auto"] | Sequence[int],
    reader: PairReader,
    look: Look,
) -> tuple[Matches, PreparedPair]:
    """Those of most reliable inliers among `found`, without a turn, and those of the turns; and
    the pair as they see it.

    Args:
        turns: quarters counterclockwise; ``auto`` tries all three where `found` tells too little.
    """
    if turns == "auto" and _reliable_inliers(found.top(TELLING)) >= ENOUGH:
        return found, pair
    best, most = (found, pair), _reliable_inliers(found)
    if isinstance(turns, str):
        turns = () if most >= ENOUGH else (1, 2, 3)
    for quarters in turns:
        turned = pair._replace(input1=reader.turned(pair.input1, quarters))
        other = look(turned)
        inliers = _reliable_inliers(other)
        if inliers > most:
            best, most = (replace(other, turned=quarters), turned), inliers
    return best


def looked_closer(found: Matches, pair: PreparedPair, reader: PairReader, look: Look) -> Matches:
    """`found` and, of few matches in a part of the images, those of a closer look at it.

    Args:
        pair: turned as `found` is.
    """
    from matcher.geometry.covisible import covisible_windows  # Estimators take a while.

    if len(found) > FEW * min(each.valid.numel() for each in pair):
        return found
    points = found.keypoints0, found.keypoints1
    points0, points1 = (p.from_stored(x).numpy() for p, x in zip(pair, points, strict=True))
    sizes = [each.image.gray.shape[::-1] for each in pair]
    windows = covisible_windows(points0, points1, *sizes)
    if windows is None:
        return found
    return found.joined(look(PreparedPair(*map(reader.zoomed, pair, windows))))


def _reliable_inliers(matches: Matches) -> int:
    """Inliers of a reliable verdict; 0 for any other."""
    from matcher.geometry.verdict import judge  # Estimators take a while to import.

    verdict = judge(matches)
    return verdict.inliers if verdict.reliable else 0
