"""The rows of the comparison: one small backbone, `pyramid-tiny`, with each kind of attention."""

from __future__ import annotations

import zlib
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from matcher.network.pyramid import Pyramid, PyramidConfig
from matcher.network.pyramid.attention import TreeMessages
from matcher.network.pyramid.model import initialize

SIDE = 128
"""Pixels of the square images."""


def tiny(**changes: Any) -> PyramidConfig:
    """`pyramid-tiny`: 32 to 160 channels, two blocks a stage, ten classes."""
    base = {"dims": (32, 64, 128, 160), "heads": (1, 2, 4, 5)}
    base |= {"mlp_ratios": (4, 4, 4, 4), "classes": 10, "lepe": False}
    return PyramidConfig(**{**base, **changes})


ROWS: MappingProxyType[str, PyramidConfig] = MappingProxyType(
    {
        "linear": tiny(attention="linear"),
        "pvt": tiny(attention="pvt"),
        "pvt_lepe": tiny(attention="pvt", lepe=True),
        "swin": tiny(attention="swin", window=8),
        "focal": tiny(attention="focal", window=4, expand=2, neighbors=5),
        "quadtree_a": tiny(variant="A"),
        "quadtree_b_plain": tiny(value_branch=False),
        "quadtree_b": tiny(lepe=True),
        "full": tiny(attention="full"),
    }
)
"""Names and configurations. ``pvt_lepe`` and ``quadtree_b_plain`` (means for the values of coarser
levels, no LePE) are controls: they tell the attention from the convolutions that the published
QuadTree-B brings along."""


def keys_of_a_query(config: PyramidConfig, cells: int) -> int:
    """Keys or summaries whose score enters a query's message, away from the borders.

    Args:
        config: of a row.
        cells: side of the square map; a power of 2.
    """
    if config.attention == "pvt":
        return (-(-cells // config.reductions[0])) ** 2
    if config.attention == "swin":
        return min(config.window, cells) ** 2
    if config.attention == "focal":
        near = min(config.window + 2 * config.expand, cells) ** 2
        return near + min(config.neighbors, cells // config.window) ** 2 - 1
    if config.attention == "quadtree":
        keys = (cells >> config.levels[0] - 1) ** 2
        total = keys
        for _ in range(config.levels[0] - 1):
            keys = 4 * min(config.topk, keys)
            total += keys
        return total
    return cells**2


def build_row(config: PyramidConfig, seed: int) -> Pyramid:
    """A pyramid whose parts start as the parts of the same name do in every other row."""
    model = Pyramid(config)
    seed_by_name(model, seed)
    return model


def seed_by_name(model: nn.Module, seed: int) -> None:
    """Draw the weights of every part anew from its name and the seed."""
    with torch.random.fork_rng(devices=()):
        for name, module in model.named_modules():
            torch.manual_seed(zlib.crc32(f"{seed} {name}".encode()))
            initialize(module)
            if isinstance(module, TreeMessages) and module.weight is not None:
                nn.init.normal_(module.weight)
