"""What the confidence of located points is fitted to, and how far it can be trusted.

    python -m benchmarks.query_points [pairs=36] [seed=5] [check=7777]

Renders pairs with the photometric differences of training, locates 400 points of each, fits the
logistic regression of `matcher.network.query_points` to the pairs of `seed` and prints its weights
and what it tells of the pairs of `check`.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from conf import plain_options
from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from matcher import Predictor, load_matcher
from matcher.geometry.cameras import warp_points
from matcher.network.patches import usable
from matcher.network.quality import RIGHT
from matcher.network.query_points import find_points, trust_in
from matcher.structures import ImagePair
from matcher.terminal.program import program

DEFAULTS = {"pairs": "36", "seed": "5", "check": "7777"}
SIZE, POINTS = (360, 480), 400


class Sample(NamedTuple):
    """Points of rendered pairs; those at the edges of surfaces are left out."""

    figures: Tensor
    error: Tensor
    told: Tensor
    """(N,) bool: a place inside of image 1 is told"""
    visible: Tensor
    covered: Tensor
    """(N,) bool: behind something in image 1"""


def sample(matcher: Predictor, count: int, seed: int) -> Sample:
    """Points of `count` rendered pairs."""
    scenes = SyntheticScenes(
        SyntheticConfig(
            size=SIZE, pairs=count, seed=seed, procedural=90, texture_seed=seed, overlap=(0.2, 0.9)
        )
    )
    parts = [points_of(matcher, render(scenes[i]), i) for i in range(count)]
    return Sample(*map(torch.cat, zip(*parts, strict=True)))


@torch.no_grad()
def points_of(matcher: Predictor, pair: ImagePair, seed: int) -> Sample:
    """Random points of one pair, with exact truth from its depth."""
    geometry, (height, width) = pair.geometry, SIZE
    if geometry is None or matcher.quality is None:
        raise ValueError("needs pairs with geometry and a matcher with quality")
    random = torch.Generator().manual_seed(seed)
    area = torch.tensor([width - 8, height - 8])
    points = torch.floor(torch.rand(POINTS, 2, generator=random) * area) + 4
    gray = [image[0, 0].clamp(0, 1).mul(255).round().byte() for image in (pair.image0, pair.image1)]
    found = matcher.match(gray[0].numpy(), gray[1].numpy())
    images = usable(gray[0].float() / 255, None), usable(gray[1].float() / 255, None)
    located = find_points(images, points, found.keypoints0, found.keypoints1, trust_in(found))
    depth = geometry.depth0[0, points[:, 1].long(), points[:, 0].long()]
    there, z = warp_points(points[None], depth[None], geometry.K0, geometry.K1, geometry.T_0to1)
    inside = within(there[0]) & (z[0] > 0)
    u, v = there[0].round().long().unbind(1)
    seen = geometry.depth1[0, v.clamp(0, height - 1), u.clamp(0, width - 1)]
    behind = z[0] / seen.clamp(min=1e-6) - 1
    visible, covered = inside & (behind.abs() < 0.01), inside & (seen > 0) & (behind > 0.03)
    known = (depth > 0) & (visible | covered | ~inside)
    told = within(located.points1) & (located.figures[:, 0] > 0)
    error = (located.points1 - there[0]).norm(dim=1)
    columns = located.figures, error, told, visible, covered
    return Sample(*(column[known] for column in columns))


def within(points: Tensor) -> Tensor:
    """(N,) bool: inside of an image of `SIZE`."""
    return ((points > -0.5) & (points < points.new_tensor(SIZE[::-1]) - 0.5)).all(dim=1)


def fitted(points: Sample) -> Tensor:
    """Bias and weights of the figures that tell which places are right."""
    figures = points.figures[points.told]
    right = (points.visible & (points.error < RIGHT))[points.told].float()
    mean, deviation = figures.mean(0), figures.std(0)
    weights = torch.zeros(figures.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=300)

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = ((figures - mean) / deviation) @ weights[1:] + weights[0]
        value = binary_cross_entropy_with_logits(logits, right) + 1e-4 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    slopes = weights.detach()[1:] / deviation
    return torch.cat([weights.detach()[:1] - slopes @ mean, slopes])


def report(points: Sample, weights: Tensor) -> list[str]:
    """What the weights tell of points."""
    seen = points.told & (points.figures @ weights[1:] + weights[0] > 0)
    hidden, right = ~points.visible, points.visible & (points.error < RIGHT)
    both = points.error[points.visible & seen]
    return [
        f"visible points told visible     {float(seen[points.visible].float().mean()):.3f}",
        f"right ones told visible         {float(seen[right].float().mean()):.3f}",
        f"median error of visible, told   {float(both.median()):.3f} px",
        f"hidden points told hidden       {float((~seen)[hidden].float().mean()):.3f}",
        f"covered points told hidden      {float((~seen)[points.covered].float().mean()):.3f}",
    ]


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = {name: int(value) for name, value in plain_options(words, DEFAULTS).items()}
    matcher = load_matcher("compact", device="cpu", offline=True)
    weights = fitted(sample(matcher, options["pairs"], options["seed"]))
    print("weights", *(f"{value:.3f}" for value in weights.tolist()))
    print(*report(sample(matcher, options["pairs"], options["check"]), weights), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
