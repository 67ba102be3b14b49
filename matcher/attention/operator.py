"""QuadTree attention as one operator of PyTorch: a single step of an exported graph.

Traced step by step, the descent would be a thousand nodes of which half compute sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

NAME = "quadmatch::quadtree"
SCHEMA = (
    "(Tensor query, Tensor key, Tensor value, Tensor query_mask, Tensor key_mask, "
    "Tensor? level_weights, int[] topks, int heads, str variant) -> Tensor"
)


@cache
def quadtree_operator(attend: Callable[..., Tensor]) -> Any:
    """The operator, registered at the first call, which computes what `attend` does.

    Of (B, C, h0, w0) queries, (B, C, h1, w1) keys and values, (B, h, w) masks of valid tokens and
    what `matcher.attention.quadtree.QuadTreeAttention` is made of, it is the (B, C, h0, w0)
    message.
    """

    def compute(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor,
        key_mask: Tensor,
        level_weights: Tensor | None,
        topks: Sequence[int],
        heads: int,
        variant: str,
    ) -> Tensor:
        maps = (query, key, value, query_mask, key_mask)
        return attend(*maps, level_weights, topks, heads, variant).contiguous()

    operator = torch.library.custom_op(NAME, compute, mutates_args=(), schema=SCHEMA)
    operator.register_fake(lambda query, *_: query.new_empty(query.shape))
    return torch.ops.quadmatch.quadtree.default
