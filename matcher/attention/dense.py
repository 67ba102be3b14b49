"""Linear and full attention with the interface of `QuadTreeAttention`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.quadtree import Level


def linear_attention(
    query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor | None, key_mask: Tensor | None
) -> Tensor:
    """Attention with the feature map elu(x) + 1 (Katharopoulos et al., 2020), linear in tokens.

    Args:
        query: (B, H, L, D); key, value: (B, H, S, D).
        query_mask: (B, L) bool of valid tokens; key_mask: (B, S); None means everywhere.

    Returns:
        (B, H, L, D)
    """
    q, k = F.elu(query) + 1, F.elu(key) + 1
    if query_mask is not None:
        q = q * query_mask[:, None, :, None]
    if key_mask is not None:
        k = k * key_mask[:, None, :, None]
        value = value * key_mask[:, None, :, None]
    tokens = value.shape[2]
    context = k.transpose(-2, -1) @ (value / tokens)
    norm = (q * k.sum(dim=2, keepdim=True)).sum(dim=-1, keepdim=True)
    return (q @ context) * tokens / (norm + 1e-6)


def full_attention(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None) -> Tensor:
    """Softmax attention of (B, H, L, D) queries; a query without a valid key gets 0."""
    if key_mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    bias = key_mask[:, None, None, :]
    message = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return message.masked_fill(~key_mask.any(dim=1)[:, None, None, None], 0.0)


class DenseAttention(nn.Module):
    """``linear`` or ``full`` attention between two maps, projections excluded."""

    def __init__(self, heads: int, kind: str) -> None:
        super().__init__()
        self.heads = heads
        self.kind = kind

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        record: list[Level] | None = None,
    ) -> Tensor:
        """(B, C, h0, w0) from (B, C, h1, w1) maps; masks (B, h, w) bool of valid tokens.

        `record` is accepted for the common interface and stays empty: there are no levels.
        """
        b, c, h, w = query.shape
        q, k, v = (
            x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for x in (query, key, value)
        )
        q_valid = None if query_mask is None else query_mask.flatten(1)
        k_valid = None if key_mask is None else key_mask.flatten(1)
        if self.kind == "linear":
            message = linear_attention(q, k, v, q_valid, k_valid)
        else:
            message = full_attention(q, k, v, k_valid)
        return message.transpose(2, 3).reshape(b, c, h, w)
