"""Recall of routed matching on rendered scenes: python -m eval.routing_recall WEIGHTS [key=value]

Options: pairs=40, size=480x640, photos=FOLDER, seed=5. Prints how many of the true matches, and of
those that the exact head finds, lie in the blocks that are compared, and how many blocks those are.
"""

from __future__ import annotations

import sys
from typing import NamedTuple, Self

import torch
from torch import Tensor

from eval.topk_recall import Options
from matcher.network.model import FeatureMatcher
from matcher.network.routing import levels_for, route
from matcher.structures import ImagePair
from matcher.terminal.program import program
from matcher.training.supervision import supervise
from matcher.validation.words import options_from_words
from matcher.weights.checkpoint import load_safetensors
from matcher.weights.hub import resolve


class RoutingRecall(NamedTuple):
    """Counts, of one pair or of several."""

    true_compared: int
    """True matches whose blocks are compared"""
    true: int
    exact_compared: int
    """Matches of the exact head whose blocks are compared"""
    exact: int
    compared: int
    """Pairs of blocks that are compared"""
    possible: int

    def and_of(self, other: Self) -> Self:
        """The counts of both."""
        return type(self)(*(a + b for a, b in zip(self, other, strict=True)))


@torch.inference_mode()
def routing_recall(model: FeatureMatcher, pair: ImagePair) -> RoutingRecall:
    """Counts of one pair with geometry: a batch of one, a `model` whose routing is exact."""
    targets, _ = supervise(pair, stride=model.stride, reach=float(model.stride), tolerance=0.05)
    found = model(pair.image0, pair.image1, pair.mask0, pair.mask1)
    masks = [model.cell_mask(mask) for mask in (pair.mask0, pair.mask1)]
    mask0, mask1 = (None if mask is None else mask[0] for mask in masks)
    levels = levels_for(found.coarse0.shape[-2:], found.coarse1.shape[-2:])
    tree0 = model.coarse.tree(found.coarse0, mask0, levels)
    tree1 = model.coarse.tree(found.coarse1, mask1, levels)
    columns = len(tree1.levels[-2])
    block0, block1 = route(tree0, tree1)
    compared = block0 * columns + block1

    def count(index0: Tensor, index1: Tensor) -> int:
        block0, block1 = tree0.block_of(index0), tree1.block_of(index1)
        return int(torch.isin(block0 * columns + block1, compared).sum())

    return RoutingRecall(
        count(targets.index0, targets.index1),
        len(targets.index0),
        count(found.coarse.index0, found.coarse.index1),
        len(found.coarse.index0),
        len(compared),
        len(tree0.levels[-2]) * columns,
    )


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    options = options_from_words(Options, words[1:])
    model = load_safetensors(resolve(words[0], offline=True), overrides={"coarse.routing": "exact"})
    total = RoutingRecall(0, 0, 0, 0, 0, 0)
    for pair in options.rendered(model.config.canvas):
        total = total.and_of(routing_recall(model, pair))
    t = total
    sys.stdout.write(
        f"true matches   {t.true_compared / max(t.true, 1):.4f} of {t.true}\n"
        f"exact matches  {t.exact_compared / max(t.exact, 1):.4f} of {t.exact}\n"
        f"blocks         {t.compared / max(t.possible, 1):.4f} of {t.possible}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
