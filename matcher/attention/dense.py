"""Linear and full attention: every query is compared with every key, or with their sum."""

from __future__ import annotations

from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from matcher.config import TransformerConfig


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


def full_attention(
    query: Tensor, key: Tensor, value: Tensor, query_mask: Tensor | None, key_mask: Tensor | None
) -> Tensor:
    """Softmax attention, arguments as above; a query without a valid key gets 0."""
    if key_mask is None:
        return F.scaled_dot_product_attention(query, key, value)
    bias = key_mask[:, None, None, :]
    message = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return message.masked_fill(~key_mask.any(dim=1)[:, None, None, None], 0.0)


class DenseAttention(nn.Module):
    """Multi-head attention between two maps without a pyramid, projections excluded."""

    cross: ClassVar[bool] = True

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: str) -> Self:
        """The attention of a ``self`` or ``cross`` layer."""
        return cls(config.heads)

    @staticmethod
    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None,
        key_mask: Tensor | None,
    ) -> Tensor:
        """(B, H, L, D) message of (B, H, L, D) queries and (B, H, S, D) keys and values."""
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, C, h0, w0) from (B, C, h1, w1) maps; masks (B, h, w) bool of valid tokens."""
        b, c, h, w = query.shape
        q, k, v = (
            x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for x in (query, key, value)
        )
        q_valid, k_valid = (None if x is None else x.flatten(1) for x in (query_mask, key_mask))
        message = self.attend(q, k, v, q_valid, k_valid)
        return message.transpose(2, 3).reshape(b, c, h, w)


class LinearAttention(DenseAttention):
    """LoFTR's attention."""

    attend = staticmethod(linear_attention)


class FullAttention(DenseAttention):
    """Softmax attention over all keys."""

    attend = staticmethod(full_attention)
