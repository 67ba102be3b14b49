"""Top-K recall: do the lists of QuadTree attention hold the true matches?

At every level a query scores the keys that descended from the level above. A true match is
recalled at a level when its own key is among those that its query, of that level, scores. The
coarsest level scores all keys, so its figure is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from matcher.attention.pyramid import quad_index
from matcher.attention.quadtree import Level, QuadTreeAttention
from matcher.attention.record import AttentionRecorder
from matcher.network.model import FeatureMatcher
from matcher.structures import ImagePair
from matcher.training.supervision import CoarseTargets, supervise


class LevelRecall(NamedTuple):
    """Share of true matches whose key is scored, at one level of one attention call."""

    union: float
    """By at least one head"""
    per_head: float
    """Mean over the heads"""
    random: float
    """Of lists of the same length drawn at random, for one head"""
    random_union: float
    """Likewise, for the union of independent heads"""
    keys: int
    """Keys that a query scores"""
    matches: int
    """True matches counted"""


@torch.inference_mode()
def topk_recall(model: FeatureMatcher, pair: ImagePair) -> list[LevelRecall]:
    """Recall of the last cross layer on a batch with geometry, image 0 asking image 1.

    Returns:
        One entry a level, coarsest first.

    Raises:
        ValueError: the model has no QuadTree attention, or the pair no geometry.
    """
    transformer = model.config.transformer
    if transformer.attention != "quadtree" or "cross" not in transformer.layers:
        raise ValueError("top-K recall needs a QuadTree cross layer")
    targets, _ = supervise(pair, stride=model.stride, reach=float(model.stride), tolerance=0.05)
    last = max(i for i, name in enumerate(transformer.layers) if name == "cross")
    with AttentionRecorder([model.transformer.blocks[last]]) as recorder:
        model(pair.image0, pair.image1, pair.mask0, pair.mask1)
    call = recorder.call(last, "0to1")
    if not isinstance(call.attention, QuadTreeAttention):
        raise TypeError(f"layer {last} has no levels")
    return recall_of(call.attention.levels(*call.arguments), targets)


def recall_of(levels: Sequence[Level], targets: CoarseTargets) -> list[LevelRecall]:
    """Recall of the levels of an attention call from image 0 to image 1."""
    recalls = []
    for depth, level in enumerate(levels):
        below = len(levels) - 1 - depth
        query = quad_index(targets.index0, targets.size0, below, len(levels))
        key = quad_index(targets.index1, targets.size1, below, len(levels))
        scored = level.keys[targets.batch, :, query]
        hit = (scored == key[:, None, None]).any(dim=-1)
        heads, keys = hit.shape[1], scored.shape[2]
        count = targets.size1[0] * targets.size1[1] // 4**below
        chance = min(keys / count, 1.0)
        union, per_head = hit.any(dim=1).float().mean().item(), hit.float().mean().item()
        any_chance = 1 - (1 - chance) ** heads
        recalls.append(LevelRecall(union, per_head, chance, any_chance, keys, len(hit)))
    return recalls
