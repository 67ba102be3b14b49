"""Linear and full attention: every query is compared with every key, or with their sum."""

from __future__ import annotations

from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from matcher.config import TransformerConfig


class DenseAttention(nn.Module):
    """Multi-head attention between two maps without a pyramid, projections excluded."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: int) -> Self:
        """The attention of a layer."""
        return cls(config.heads)

    @staticmethod
    def attend(
        q: Tensor, k: Tensor, v: Tensor, q_mask: Tensor | None, k_mask: Tensor | None
    ) -> Tensor:
        """(B, H, L, D) message of (B, H, L, D) queries and (B, H, S, D) keys and values; masks
        (B, L) and (B, S) bool of valid tokens, None means everywhere."""
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
    """LoFTR's attention, linear in tokens: with the feature map elu(x) + 1 (Katharopoulos et al.,
    2020)."""

    @staticmethod
    def attend(
        q: Tensor, k: Tensor, v: Tensor, q_mask: Tensor | None, k_mask: Tensor | None
    ) -> Tensor:
        q, k = F.elu(q) + 1, F.elu(k) + 1
        if q_mask is not None:
            q = q * q_mask[:, None, :, None]
        if k_mask is not None:
            k, v = (x * k_mask[:, None, :, None] for x in (k, v))
        tokens = v.shape[2]
        context = k.mT @ (v / tokens)
        norm = (q * k.sum(dim=2, keepdim=True)).sum(dim=-1, keepdim=True)
        return (q @ context) * tokens / (norm + 1e-6)


class FullAttention(DenseAttention):
    """Softmax attention over all keys; a query without a valid key gets 0."""

    @staticmethod
    def attend(
        q: Tensor, k: Tensor, v: Tensor, q_mask: Tensor | None, k_mask: Tensor | None
    ) -> Tensor:
        if k_mask is None:
            return F.scaled_dot_product_attention(q, k, v)
        message = F.scaled_dot_product_attention(q, k, v, attn_mask=k_mask[:, None, None, :])
        return message.masked_fill(~k_mask.any(dim=1)[:, None, None, None], 0.0)
