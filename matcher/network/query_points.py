"""Where single points of image 0 lie in image 1, from the matches around them and the pixels.

Each of the matches nearest to a point says where it goes, by the affine map around that match.
What most of them agree on, and what the others do (another surface ends there), is laid on the
pixels as matches are (`photometric`), and the better one is taken. Whether the point can be seen
is told by how the patches agree and by whether the matches around the place in image 1 lead back.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from matcher.images.preprocess import PreparedPair
from matcher.network.local_affine import FAR, inverse, local_affines
from matcher.network.patches import Usable, blurred
from matcher.network.photometric import (
    CHUNK,
    DOUBT,
    align_chunks,
    common_zoom,
    schedule,
    source_of,
)
from matcher.structures import LocatedPoints, Matches
from matcher.validation.checked import invalid

NEIGHBORS = 16
"""Nearest matches that are asked."""
CELL = 8.0
"""Pixels of the network at which a neighbor has half the weight of one at the point."""
TOLERANCE = (2.0, 0.1)
"""Distance of two answers that agree: so many pixels, and so much of the distance asked over."""
FIGURES = (
    "support", "trust", "spread", "distance", "moved", "correlation", "accepted", "back", "off",
)  # fmt: skip
"""What is known of a point; the last two of the way back to image 0."""
WEIGHTS = (0.810, 3.134, 0.680, 0.290, -1.060, 0.085, -0.032, 0.977, 0.026, -1.118)
"""Bias and weights of `FIGURES`: from `python -m benchmarks.query_points`, 36 rendered pairs. On
others it tells 94% of the hidden points (74% of those behind something) and keeps 91% of those
that are right within 3 px. What covers a point and has no match of its own is often missed."""


Images = tuple[Usable, Usable]


class Answer(NamedTuple):
    """Where the matches around points lead."""

    points: Tensor
    """(N, 2) pixels of the network of the other image"""
    warp: Tensor
    """(N, 2, 2) the map around there"""
    support: Tensor
    """(N,) share of the neighbors, nearer and better ones counting more, that say so; 0 where none
    does"""
    trust: Tensor
    """(N,) mean trust in those that do"""
    spread: Tensor
    """(N,) how far their answers are from their mean"""


class Found(NamedTuple):
    """Query points in image 1."""

    points1: Tensor
    """(N, 2) pixels; NaN where no match is near"""
    figures: Tensor
    """(N, 9) of `FIGURES`"""


class Neighborhood(NamedTuple):
    """What each of the matches around points says of them; pixels are those of the network."""

    answers: Tensor
    """(N, K, 2) where the point lies in the other image"""
    warps: Tensor
    """(N, K, 2, 2)"""
    apart: Tensor
    """(N, K) distance of each, nearest first"""
    trust: Tensor
    """(N, K) in each, in [0, 1]"""

    @staticmethod
    def of(
        points: Tensor, here: Tensor, there: Tensor, warps: Tensor, trust: Tensor
    ) -> Neighborhood:
        """Of (N, 2) points among (M, 2) matches from `here` to `there` with (M, 2, 2) maps."""
        count = min(NEIGHBORS, len(here))
        found = [distances(part, here).topk(count, largest=False) for part in points.split(CHUNK)]
        apart, index = (torch.cat(column) for column in zip(*found, strict=True))
        way = points[:, None] - here[index]
        answers = there[index] + (warps[index] * way[:, :, None]).sum(-1)
        return Neighborhood(answers, warps[index], apart, trust[index])

    @property
    def weight(self) -> Tensor:
        """(N, K) of each, 0 where it is too far"""
        near = torch.where(self.apart < FAR, 1 / (1 + (self.apart / CELL).square()), 0.0)
        return near * self.trust

    @property
    def tolerance(self) -> Tensor:
        """(N, K) pixels within which answers agree"""
        return TOLERANCE[0] + TOLERANCE[1] * self.apart

    def strongest(self, left: Tensor | None = None) -> tuple[Answer, Tensor]:
        """What most agree on, of those `left` (N, K), and (N, K) which ones do not."""
        weight = self.weight if left is None else self.weight * left
        tolerance = torch.maximum(self.tolerance[:, :, None], self.tolerance[:, None])
        agree = (distances(self.answers, self.answers) < tolerance).to(weight.dtype)
        support = (agree * weight[:, None]).sum(2) * (weight > 0)
        best = support.argmax(1)
        those = agree[torch.arange(len(agree)), best] * weight
        share = those / those.sum(1, keepdim=True).clamp(min=1e-9)
        place = (share[:, :, None] * self.answers).sum(1)
        off = (self.answers - place[:, None]).norm(dim=2)
        answer = Answer(
            place,
            (share[:, :, None, None] * self.warps).sum(1),
            those.sum(1) / self.weight.sum(1).clamp(min=1e-9),
            (share * self.trust).sum(1),
            (share * off).sum(1),
        )
        return answer, 1 - agree[torch.arange(len(agree)), best]

    def agreeing(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) share of the answers near each of (N, 2) `points`, and how far they are on average.

        Distances above 20 pixels of the network count as that.
        """
        share = self.weight / self.weight.sum(1, keepdim=True).clamp(min=1e-9)
        far = (self.answers - points[:, None]).norm(dim=2)
        return ((far < self.tolerance) * share).sum(1), (far.clamp(max=20) * share).sum(1)


def find_points(
    images: Images, points: Tensor, matches0: Tensor, matches1: Tensor, trust: Tensor
) -> Found:
    """Where (N, 2) points of image 0 lie in image 1.

    Args:
        points, matches0, matches1: pixels of the full images; (M, 2) matches between them.
        trust: (M,) in each match, in [0, 1].
    """
    count = len(points)
    if not len(matches0):
        nothing = points.new_full((count, 2), float("nan"))
        return Found(nothing, points.new_zeros(count, len(FIGURES)))
    scale0, scale1 = (image.scale for image in images)
    here, there = matches0 / scale0, matches1 / scale1
    warps = local_affines(here, there, weights=trust)
    around = Neighborhood.of(points / scale0, here, there, warps, trust)
    first, left = around.strongest()
    second, _ = around.strongest(left)
    zoom = common_zoom(here, there) * scale1 / scale0
    placed = [aligned(images, points, each, zoom) for each in (first, second)]
    better = (second.support > 0) & (placed[1].score > placed[0].score)
    answer, place = chosen(better, second, first), chosen(better, placed[1], placed[0])
    back = Neighborhood.of(place.points1 / scale1, there, here, inverse(warps), trust)
    share, off = back.agreeing(points / scale0)
    moved = (place.points1 / scale1 - answer.points).norm(dim=1)
    apart = around.apart[:, 0].clamp(max=FAR)
    told = [
        answer.support, answer.trust, answer.spread.log1p(), apart.log1p(), moved.log1p(),
        place.correlation, place.accepted.to(points.dtype), share, off.log1p(),
    ]  # fmt: skip
    figures = torch.stack(told, dim=1)
    points1 = place.points1
    known = first.support > 0
    points1 = torch.where(known[:, None], points1, float("nan"))
    return Found(points1, figures * known[:, None])


def distances(points: Tensor, others: Tensor) -> Tensor:
    """(..., N, M) between (..., N, 2) and (..., M, 2), not by products of matrices, which are wrong
    by tenths of a pixel."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


class Placed(NamedTuple):
    """An answer laid on the pixels."""

    points1: Tensor
    correlation: Tensor
    accepted: Tensor
    score: Tensor
    """(N,) by which answers about one point are compared"""


Row = TypeVar("Row", Answer, Placed)


def chosen(first: Tensor, these: Row, others: Row) -> Row:
    """Rows of `these` where (N,) bool `first` is set, else those of the others."""
    pairs = zip(these, others, strict=True)
    return type(these)(*(torch.where(first.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))


def aligned(images: Images, points: Tensor, answer: Answer, zoom: float) -> Placed:
    """Moves each answer to where the pixels agree; it stays where they do not."""
    image0, image1 = images
    points1 = answer.points * image1.scale
    correlation, accepted = torch.zeros_like(points[:, 0]), torch.zeros_like(points[:, 0]).bool()
    warp = answer.warp * (image1.scale / image0.scale)
    for number, (unit0, fit) in enumerate(schedule(image0.scale, image1.scale, zoom)):
        levels = (
            blurred(image0, fit.blur * unit0, fit.exact),
            blurred(image1, fit.blur * unit0 * zoom, fit.exact),
        )
        found = align_chunks(*levels, points, points1, unit0, warp * unit0, fit, CHUNK)
        points1 = torch.where(found.accepted[:, None], found.points1, points1)
        if number == 1:
            correlation, accepted = found.correlation, found.accepted
    score = correlation * accepted + 0.5 * answer.support
    return Placed(points1, correlation, accepted, score)


def points_in(points: object, size: tuple[int, int]) -> Tensor:
    """(N, 2) float32, of their own, of what a user gives as points of an image of `size` (width,
    height), also as OpenCV's (N, 1, 2); else E201."""
    try:
        # Copied by NumPy, as PyTorch takes neither negative strides nor the other order of bytes.
        plain = points.detach() if isinstance(points, Tensor) else np.array(points, np.float32)
        given = torch.as_tensor(plain, dtype=torch.float32, device="cpu").clone()
        given = given.reshape(0, 2) if given.numel() == 0 else given
        given = given[:, 0] if given.ndim == 3 and given.shape[1] == 1 else given
        if given.ndim != 2 or given.shape[1] != 2:
            raise ValueError("not a row a point")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise invalid("points", repr(points)[:80], "(N, 2) numbers, x and y in pixels") from None
    inside = (given >= -0.5) & (given <= given.new_tensor(size) - 0.5)
    if not bool(inside.all()):
        x, y = given[~inside.all(dim=1)][0].tolist()
        expected = f"points inside of image 0, which is {size[0]} x {size[1]} pixels"
        raise invalid("points", f"({x:g}, {y:g})", expected)
    return given


def locate_points(
    pair: PreparedPair, found: Matches, points0: Tensor, device: torch.device
) -> LocatedPoints:
    """Where (N, 2) points of image 0 lie in image 1; they and `found` in pixels as stored."""
    answer = find_points(
        (source_of(pair.input0, device), source_of(pair.input1, device)),
        pair.input0.from_stored(points0).to(device),
        pair.input0.from_stored(found.keypoints0).to(device),
        pair.input1.from_stored(found.keypoints1).to(device),
        trust_in(found).to(device),
    )
    points1 = pair.input1.to_stored(answer.points1.cpu())
    size = points1.new_tensor(pair.input1.image.size)
    inside = ((points1 > -0.5) & (points1 < size - 0.5)).all(dim=1)
    return LocatedPoints(points0, points1, confidence_of(answer.figures.cpu()) * inside)


def trust_in(found: Matches) -> Tensor:
    """(N,) how much each match counts: less where the refinement did not converge."""
    trust = found.scores if found.quality is None else found.quality
    if found.converged is None:
        return trust
    return torch.where(found.converged, trust, DOUBT * trust)


def confidence_of(figures: Tensor) -> Tensor:
    """(N,) of (N, 9) `FIGURES`."""
    weights = figures.new_tensor(WEIGHTS)
    return (figures @ weights[1:] + weights[0]).sigmoid() * (figures[:, 0] > 0)
