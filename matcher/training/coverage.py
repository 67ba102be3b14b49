"""Top-K coverage: do the lists of QuadTree attention hold the true matches?

At every level a query scores the keys that descended from the level above. A true match is
covered at a level when its own key is among those that its query, of that level, scores. The
coarsest level scores all keys, so its figure is 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from matcher.attention.pyramid import quad_index
from matcher.attention.quadtree import Level
from matcher.network.model import FeatureMatcher
from matcher.structures import ImagePair
from matcher.training.supervision import CoarseTargets, supervise


class LevelCoverage(NamedTuple):
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
def topk_coverage(
    model: FeatureMatcher, pair: ImagePair, tolerance: float = 0.05
) -> list[LevelCoverage]:
    """Coverage of the last cross layer on a batch with geometry, image 0 asking image 1.

    Returns:
        One entry a level, coarsest first.

    Raises:
        ValueError: the model has no QuadTree attention, or the pair no geometry.
    """
    config = model.config
    if config.transformer.attention != "quadtree" or "cross" not in config.transformer.layers:
        raise ValueError("coverage needs a QuadTree cross layer")
    stride = config.backbone.resolution[0]
    targets, _ = supervise(pair, stride=stride, reach=float(stride), tolerance=tolerance)
    mask0, mask1 = model.cell_mask(pair.mask0), model.cell_mask(pair.mask1)
    recording: list[list[Level]] = []
    features0, features1 = model.extract(pair.image0), model.extract(pair.image1)
    model.attend(features0.coarse, features1.coarse, mask0, mask1, recording)
    last = max(i for i, name in enumerate(config.transformer.layers) if name == "cross")
    return coverage_of(recording[2 * last], targets)


def coverage_of(levels: list[Level], targets: CoarseTargets) -> list[LevelCoverage]:
    """Coverage of the recorded levels of an attention call from image 0 to image 1."""
    out = []
    for depth, level in enumerate(levels):
        below = len(levels) - 1 - depth
        query = quad_index(targets.index0, targets.size0, below, len(levels))
        key = quad_index(targets.index1, targets.size1, below, len(levels))
        scored = level.keys[targets.batch, :, query]
        hit = (scored == key[:, None, None]).any(dim=-1)
        heads, keys = hit.shape[1], scored.shape[2]
        count = targets.size1[0] * targets.size1[1] // 4**below
        chance = min(keys / count, 1.0)
        matches = hit.shape[0]
        out.append(
            LevelCoverage(
                union=hit.any(dim=1).float().mean().item() if matches else float("nan"),
                per_head=hit.float().mean().item() if matches else float("nan"),
                random=chance,
                random_union=1 - (1 - chance) ** heads,
                keys=keys,
                matches=matches,
            )
        )
    return out
