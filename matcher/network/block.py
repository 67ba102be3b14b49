"""Blocks of the transformer: projections, an attention of any kind, and an MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention import Attention
from matcher.attention.record import ACTIVE, Place
from matcher.attention.spatial_reduction import SpatialReductionAttention

BAND_CELLS = 1 << 14
"""Cells that go through an MLP at a time: 8 MB of a hidden map of 256 channels in bfloat16."""
LEAST_ROWS = 32


class TokenLinear(nn.Linear):
    """A linear layer on (B, h, w, C) tokens.

    On CPUs a 1x1 convolution: PyTorch's library for these is the faster one, by 4% of a pair.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(tokens)
        return to_tokens(F.conv2d(to_map(tokens), self.weight[:, :, None, None], self.bias))


class ConvMLP(nn.Module):
    """Two linear layers with a depthwise 3x3 convolution between them (PVTv2's)."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        hidden = channels * ratio
        self.expand = TokenLinear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = TokenLinear(hidden, channels)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, h, w, C) tokens; (B, h, w) bool of valid tokens."""
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self._forward(tokens, mask)
        # The hidden maps are the largest of a layer: those of some rows of one image at a time.
        rows = max(LEAST_ROWS, BAND_CELLS // tokens.shape[2])
        images = []
        for i in range(len(tokens)):
            image, valid = tokens[i : i + 1], None if mask is None else mask[i : i + 1]
            tops = range(0, tokens.shape[1], rows)
            images.append(torch.cat([self._band(image, valid, top, rows) for top in tops], dim=1))
        return torch.cat(images)

    def _band(self, tokens: Tensor, mask: Tensor | None, top: int, rows: int) -> Tensor:
        """The result for some rows of one image; the convolution sees those beside them."""
        seen = slice(max(top - 1, 0), top + rows + 1)
        band = self._forward(tokens[:, seen], None if mask is None else mask[:, seen])
        return band[:, top - seen.start :][:, :rows]

    def _forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        hidden = F.relu(self.expand(tokens), inplace=True)
        if mask is not None:
            hidden = hidden * mask[..., None]
        hidden = to_tokens(self.depthwise(to_map(hidden)))
        return self.reduce(F.gelu(hidden))


class AttentionBlock(nn.Module):
    """A map that is updated by what it reads from another one, or from itself."""

    simultaneous: bool
    """Whether both images of a cross layer are updated from their old values, as published."""
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention: Attention

    def sides(self, tokens: Tensor, target: Tensor, alone: bool) -> tuple[Tensor, Tensor]:
        """(B, h, w, C) tokens and target tokens as queries and keys are made of them; `alone`
        where both are the same."""
        return tokens, target

    def update(self, tokens: Tensor, message: Tensor, mask: Tensor | None) -> Tensor:
        """(B, h, w, C) tokens after their message; mask (B, h, w) bool of valid tokens."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        x_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        place: Place | None = None,
    ) -> Tensor:
        """(B, C, h0, w0) `x` after it has read from `target`.

        Args:
            x: (B, C, h0, w0); target: (B, C, h1, w1), `x` itself in a self layer.
            x_mask: (B, h0, w0) bool of valid tokens, None means everywhere; `target_mask` likewise.
            place: of this call in the transformer, for recorders.
        """
        message = self._read(x, target, x_mask, target_mask, place)
        return to_map(self.update(to_tokens(x), message, x_mask))

    def _read(
        self,
        x: Tensor,
        target: Tensor,
        x_mask: Tensor | None,
        target_mask: Tensor | None,
        place: Place | None,
    ) -> Tensor:
        """(B, h0, w0, C) message; the maps that it is made of are gone when it is used."""
        maps, target_mask = self._project(x, target, target_mask)
        if place is not None and (recorder := ACTIVE.get()) is not None:
            recorder.report(self, place, maps, (x_mask, target_mask))
        return to_tokens(self.attention(*maps, x_mask, target_mask))

    def _project(
        self, x: Tensor, target: Tensor, target_mask: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor | None]:
        """Query, key and value maps, and the mask of the keys; of what they are made none stays."""
        query_side, key_side = self.sides(to_tokens(x), to_tokens(target), target is x)
        if isinstance(self.attention, SpatialReductionAttention):
            key_side, target_mask = self.attention.reduce(key_side, target_mask)
        query = to_map(self.query(query_side))
        return (query, to_map(self.key(key_side)), to_map(self.value(key_side))), target_mask


class QuadTreeBlock(AttentionBlock):
    """The published QuadTree block: pre-norm attention, then a convolutional MLP."""

    simultaneous = True

    def __init__(self, channels: int, attention: Attention, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.query = TokenLinear(channels, channels, bias=False)
        self.key = TokenLinear(channels, channels, bias=False)
        self.value = TokenLinear(channels, channels, bias=False)
        self.attention = attention
        self.project = TokenLinear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = ConvMLP(channels, mlp_ratio)

    def sides(self, tokens: Tensor, target: Tensor, alone: bool) -> tuple[Tensor, Tensor]:
        query_side = self.norm1(tokens)
        return query_side, query_side if alone else self.norm1(target)

    def update(self, tokens: Tensor, message: Tensor, mask: Tensor | None) -> Tensor:
        tokens = tokens + self.project(message)
        return tokens + self.mlp(self.norm2(tokens), mask)


class LoFTRBlock(AttentionBlock):
    """LoFTR's encoder layer: the message, merged with its receiver by an MLP, is added."""

    simultaneous = False

    def __init__(self, channels: int, attention: Attention) -> None:
        super().__init__()
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.attention = attention
        self.merge = nn.Linear(channels, channels, bias=False)
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(2 * channels, 2 * channels, bias=False),
            nn.ReLU(),
            nn.Linear(2 * channels, channels, bias=False),
        )

    def update(self, tokens: Tensor, message: Tensor, mask: Tensor | None) -> Tensor:
        message = self.norm1(self.merge(message))
        return tokens + self.norm2(self.mlp(torch.cat([tokens, message], dim=-1)))


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h, w, C); a view."""
    return x.permute(0, 2, 3, 1)


def to_map(tokens: Tensor) -> Tensor:
    """(B, h, w, C) to (B, C, h, w); a view in channels-last memory."""
    return tokens.permute(0, 3, 1, 2)
