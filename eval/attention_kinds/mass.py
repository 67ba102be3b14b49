"""How much of full attention the keys hold that another kind looks at: no training is needed.

Queries and keys are those of a network with full attention, which favors no other kind.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from matcher.attention.pyramid import to_quad, token_pyramid
from matcher.attention.reference import Pyramids, descend
from matcher.network.pyramid import Pyramid, PyramidConfig
from matcher.network.pyramid.attention import SelfAttention


class Mass(NamedTuple):
    """Mean over queries and heads, from 0 to 1."""

    reached: float
    """Share of full attention at the single cells that a query scores"""
    best: float
    """Share at as many cells, chosen best"""


class StageInput(NamedTuple):
    """Queries and keys of one attention."""

    query: Tensor
    """(B, C, h, w)"""
    key: Tensor
    heads: int


@torch.inference_mode()
def queries_and_keys(model: Pyramid, images: Tensor) -> StageInput:
    """Of the last block of the first stage, for (B, 3, H, W) images."""
    kept: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            kept[name] = output

        return module.register_forward_hook(hook)

    attention = [*model.get_submodule("block1").children()][-1].get_submodule("attn")
    if not isinstance(attention, SelfAttention):
        raise TypeError(type(attention))
    handles = [keep("query", attention.q_proj), keep("key", attention.k_proj)]
    try:
        model.eval().features(images)
    finally:
        for handle in handles:
            handle.remove()
    return StageInput(kept["query"], kept["key"], model.config.heads[0])


@torch.inference_mode()
def mass_reached(config: PyramidConfig, stage: StageInput) -> Mass | None:
    """What the first stage of a row would reach; None for kinds that score no single cells or all.

    The summaries of Focal and the coarser levels of the QuadTree do not count.
    """
    levels = config.levels[0]
    q, k = (to_quad(x, levels, stage.heads) for x in (stage.query, stage.key))
    if config.attention == "quadtree":
        seen = _seen_by_tree(q, k, config)
    elif config.attention in ("swin", "focal"):
        h, w = stage.query.shape[-2:]
        seen = _seen_in_windows((h, w), levels, config)
    else:
        return None
    p = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)
    count = int(seen.sum(dim=-1).max())
    reached = (p * seen).sum(dim=-1).mean()
    return Mass(float(reached), float(p.topk(count, dim=-1).values.sum(dim=-1).mean()))


def _seen_by_tree(q: Tensor, k: Tensor, config: PyramidConfig) -> Tensor:
    """(B, H, N, N) bool of the finest cells that a query scores, in quad order."""
    levels = config.levels[0]
    queries, keys = (token_pyramid(x, [None] * levels) for x in (q, k))
    steps = descend(
        Pyramids(queries, keys, keys, [None] * levels), (config.topk,) * levels, config.variant
    )
    found = steps[-1].keys  # (B, H, G, K)
    seen = torch.zeros(*found.shape[:3], k.shape[2], dtype=torch.bool)
    seen.scatter_(3, found, torch.ones_like(found, dtype=torch.bool))
    return seen.repeat_interleave(q.shape[2] // found.shape[2], dim=2)


def _seen_in_windows(size: tuple[int, int], levels: int, config: PyramidConfig) -> Tensor:
    """(N, N) bool of the cells that a query scores, in quad order; windows not shifted."""
    reach = config.expand if config.attention == "focal" else 0
    rows, columns = (torch.arange(float(side)) for side in size)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    cells = to_quad(grid, levels, 1)[0, 0]  # (N, 2)
    first = cells // config.window * config.window - reach
    after = first + config.window + 2 * reach
    inside = (cells[None] >= first[:, None]) & (cells[None] < after[:, None])
    return inside.all(dim=-1)
