"""Attention of the pyramid's blocks, with the names that published files give to its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention import Attention
from matcher.attention.dense import FullAttention, LinearAttention
from matcher.attention.focal import FocalAttention
from matcher.attention.pyramid import mask_pyramid, merge_levels, to_quad, token_pyramid
from matcher.attention.quadtree import descend
from matcher.attention.reference import Pyramids, Variant, attend
from matcher.attention.spatial_reduction import SpatialReductionAttention
from matcher.attention.windows import WindowAttention
from matcher.network.block import TokenLinear, to_map, to_tokens
from matcher.network.pyramid.config import PyramidConfig

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class MapNorm(nn.GroupNorm):
    """Group normalization of one group whose statistics leave out what is masked.

    Equal to PyTorch's where nothing is. As published, an image depends on how far it is padded.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, C, h, w) maps; (B, h, w) bool of valid cells. Masked cells become 0."""
        if mask is None:
            return super().forward(x)
        valid = mask[:, None]
        count = (mask.sum(dim=(1, 2)) * x.shape[1]).clamp(min=1).view(-1, 1, 1, 1)
        kept = x.masked_fill(~valid, 0.0)
        mean = kept.sum(dim=(1, 2, 3), keepdim=True) / count
        centered = (kept - mean).masked_fill(~valid, 0.0)
        variance = centered.square().sum(dim=(1, 2, 3), keepdim=True) / count
        scale = self.weight.view(-1, 1, 1) * torch.rsqrt(variance + self.eps)
        return (centered * scale + self.bias.view(-1, 1, 1)).masked_fill(~valid, 0.0)


class ValueBranch(nn.Sequential):
    """The values of a level from those of the next finer one."""

    def __init__(self, channels: int, activation: Literal["gelu", "relu"]) -> None:
        act = ACTIVATIONS[activation]
        super().__init__(
            MapNorm(channels),
            act(),
            nn.Conv2d(channels, channels, 2, stride=2),
            MapNorm(channels),
            act(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(
        self, x: Tensor, fine: Tensor | None = None, coarse: Tensor | None = None
    ) -> Tensor:
        """(B, C, h / 2, w / 2) of (B, C, h, w) values.

        Args:
            x: values of the finer level.
            fine: (B, h, w) bool of its valid cells, None means everywhere.
            coarse: (B, h / 2, w / 2) likewise of the result.
        """
        norm0, act0, halve, norm1, act1, mix = self
        # Both activations keep the 0 of masked cells, so that they add nothing to a block.
        return mix(act1(norm1(halve(act0(norm0(x, fine))), coarse)))


def mask_levels(mask: Tensor | None, levels: int) -> list[Tensor | None]:
    """(B, h, w) masks of the levels of a map, finest first: a cell is valid if any child is."""
    masks = [mask]
    for _ in range(levels - 1):
        last = masks[-1]
        masks.append(None if last is None else F.max_pool2d(last[:, None].float(), 2)[:, 0] > 0)
    return masks


class SelfAttention(nn.Module):
    """Projections, and between them a message of each cell from its own map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q_proj = nn.Conv2d(channels, channels, 1)
        self.k_proj = nn.Conv2d(channels, channels, 1)
        self.v_proj = nn.Conv2d(channels, channels, 1)
        self.proj = TokenLinear(channels, channels)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, h, w, C) of (B, h, w, C) tokens; (B, h, w) bool of valid ones."""
        return self.proj(to_tokens(self.message(tokens, mask)))

    def message(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, h, w) of the same."""
        raise NotImplementedError


class TreeSelfAttention(SelfAttention):
    """QuadTree attention whose values of coarser levels are learned, or means of the finer ones."""

    def __init__(self, channels: int, heads: int, levels: int, config: PyramidConfig) -> None:
        super().__init__(channels)
        self.py_att = TreeMessages(channels, heads, levels, config)
        self.value_branchs = None
        if config.variant == "B" and config.value_branch:
            branches = (ValueBranch(channels, config.activation) for _ in range(levels - 1))
            self.value_branchs = nn.ModuleList(branches)

    def message(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        x = to_map(tokens)
        masks = mask_levels(mask, len(self.py_att.topks))[::-1]
        values = self.values(self.v_proj(x), masks)
        return self.py_att(self.q_proj(x), self.k_proj(x), values, masks)

    def values(self, value: Tensor, masks: list[Tensor | None]) -> list[Tensor]:
        """Maps of the values of all levels, coarsest first like their (B, h, w) `masks`."""
        values = [value]
        for i in range(len(masks) - 1):
            fine, coarse = masks[-1 - i], masks[-2 - i]
            if self.value_branchs is not None:
                values.append(self.value_branchs[i](values[-1], fine, coarse))
            else:
                values.append(_halved(values[-1], fine))
        return values[::-1]


class TreeMessages(nn.Module):
    """The QuadTree descent, to which variant B adds LePE (Dong et al., CVPR 2022) at every level.

    Args:
        channels: C.
        heads: H.
        levels: of the QuadTree.
        config: variant, keys that descend, what is learned.
    """

    def __init__(self, channels: int, heads: int, levels: int, config: PyramidConfig) -> None:
        super().__init__()
        self.heads = heads
        self.variant: Variant = config.variant
        self.topks = (config.topk,) * levels
        self.drop_best = config.drop_best and config.variant == "A" and levels == 1
        b = config.variant == "B"
        self.weight = nn.Parameter(torch.randn(levels)) if b else None
        self.get_vs = None
        if b and config.lepe:
            self.get_vs = nn.ModuleList(depthwise(channels) for _ in range(levels))

    def forward(
        self, query: Tensor, key: Tensor, values: list[Tensor], masks: list[Tensor | None]
    ) -> Tensor:
        """(B, C, h, w) message of maps whose sides are multiples of 2^(levels - 1).

        Args:
            query, key: (B, C, h, w).
            values: (B, C, h', w') of all levels, coarsest first.
            masks: (B, h', w') bool of valid cells likewise, None means everywhere.
        """
        levels = len(self.topks)
        messages = self.descend(self.pyramids(query, key, values, masks[-1]))
        if self.get_vs is not None:
            for level, (conv, v, mask) in enumerate(zip(self.get_vs, values, masks, strict=True)):
                v = v if mask is None else v.masked_fill(~mask[:, None], 0.0)
                messages[level] = messages[level] + to_quad(conv(v), level + 1, self.heads)
        weights = None if self.weight is None else self.weight.softmax(dim=0)
        return merge_levels(messages, weights, levels, (query.shape[-2], query.shape[-1]))

    def pyramids(
        self, query: Tensor, key: Tensor, values: list[Tensor], mask: Tensor | None
    ) -> Pyramids:
        """What the descent works on."""
        levels, heads = len(self.topks), self.heads
        masks = mask_pyramid(mask, levels)
        queries, keys = (token_pyramid(to_quad(x, levels, heads), masks) for x in (query, key))
        tokens = [to_quad(v, level + 1, heads) for level, v in enumerate(values)]
        return Pyramids(queries, keys, tokens, masks)

    def descend(self, pyramids: Pyramids) -> list[Tensor]:
        """(B, H, N, D) of each level, coarsest first."""
        if self.drop_best:
            # What would descend is left out although nothing is below: a published quirk.
            (q,), (k,), (v,), (mask,) = pyramids
            return [attend(q, k, v, mask, None, self.topks[0], "A").message]
        return descend(pyramids, self.topks, self.variant)


class PlainSelfAttention(SelfAttention):
    """Attention of any other kind, with or without LePE."""

    def __init__(self, channels: int, attention: Attention, lepe: bool) -> None:
        super().__init__(channels)
        self.attention = attention
        self.lepe = depthwise(channels) if lepe else None

    def message(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        key_side, key_mask = tokens, mask
        if isinstance(self.attention, SpatialReductionAttention):
            key_side, key_mask = self.attention.reduce(tokens, mask)
        x, source = to_map(tokens), to_map(key_side)
        value = self.v_proj(source)
        message = self.attention(self.q_proj(x), self.k_proj(source), value, mask, key_mask)
        if self.lepe is None:
            return message
        here = value if key_side is tokens else self.v_proj(x)
        return message + self.lepe(here if mask is None else here * mask[:, None])


def build_attention(config: PyramidConfig, stage: int, block: int) -> SelfAttention:
    """The attention of a block, both counted from 0."""
    c, heads = config.dims[stage], config.heads[stage]
    window = config.window
    kinds: dict[str, Callable[[], Attention]] = {
        "linear": lambda: LinearAttention(heads),
        "full": lambda: FullAttention(heads),
        "pvt": lambda: SpatialReductionAttention(c, heads, config.reductions[stage]),
        "swin": lambda: WindowAttention(heads, window, window // 2 * (block % 2)),
        "focal": lambda: FocalAttention(heads, window, config.expand, config.neighbors),
    }
    if config.attention == "quadtree":
        return TreeSelfAttention(c, heads, config.levels[stage], config)
    return PlainSelfAttention(c, kinds[config.attention](), config.lepe)


def depthwise(channels: int) -> nn.Conv2d:
    """A 3x3 convolution of each channel."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def _halved(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C, h / 2, w / 2) means of the valid cells of (B, C, h, w) maps, 0 where there is none."""
    if mask is None:
        return F.avg_pool2d(x, 2)
    valid = mask[:, None].to(x.dtype)
    total = F.avg_pool2d(x.masked_fill(~mask[:, None], 0.0), 2, divisor_override=1)
    return total / F.avg_pool2d(valid, 2, divisor_override=1).clamp(min=1)
