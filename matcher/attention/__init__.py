"""Attention between two maps, of several kinds behind one interface, chosen by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Protocol, Self

from torch import Tensor

from matcher.attention.dense import FullAttention, LinearAttention
from matcher.attention.focal import FocalAttention
from matcher.attention.quadtree import QuadTreeAttention
from matcher.attention.spatial_reduction import SpatialReductionAttention
from matcher.attention.windows import WindowAttention
from matcher.config import TransformerConfig


class Attention(Protocol):
    """What a block calls: a message to one map from another, projections excluded."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, C, h0, w0) message.

        Args:
            query: (B, C, h0, w0); key, value: (B, C, h1, w1).
            query_mask: (B, h0, w0) bool, True where a token is valid, None means everywhere;
                key_mask: (B, h1, w1) likewise. Invalid tokens have no influence.
        """
        ...


class AttentionKind(Attention, Protocol):
    """A kind of the matcher, which its configuration builds."""

    @classmethod
    def from_config(cls, config: TransformerConfig, channels: int, layer: int) -> Self:
        """The module for the layer of that number on maps of `channels`."""
        ...


KINDS: MappingProxyType[str, type[AttentionKind]] = MappingProxyType(
    {
        "quadtree": QuadTreeAttention,
        "linear": LinearAttention,
        "full": FullAttention,
        "pvt": SpatialReductionAttention,
        "swin": WindowAttention,
        "focal": FocalAttention,
    }
)
"""All kinds of attention, by the name in `TransformerConfig.attention`."""
