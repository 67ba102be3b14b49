"""Interleaved self- and cross-attention layers over the coarse maps of two images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.attention.__init__ import build_attention
from matcher.attention.quadtree import Level
from matcher.config import TransformerConfig

TOGETHER_CELLS = 128 * 128
"""Up to so many cells an image, both images go through a layer as one batch: that saves calls.
Beyond, it would only take twice the memory."""

Recording = list[list[Level]]
"""One list of levels for each attention call."""


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
        if torch.is_grad_enabled():
            return self._forward(tokens, mask)
        # The hidden maps are the largest of a layer: one image's at a time.
        masks = [None] * len(tokens) if mask is None else mask.split(1)
        return torch.cat([self._forward(*one) for one in zip(tokens.split(1), masks, strict=True)])

    def _forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        hidden = F.relu(self.expand(tokens), inplace=True)
        if mask is not None:
            hidden = hidden * mask[..., None]
        hidden = self.depthwise(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.reduce(F.gelu(hidden))


class QuadTreeBlock(nn.Module):
    """The published QuadTree block: pre-norm attention, then a convolutional MLP."""

    def __init__(self, channels: int, attention: nn.Module, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.query = TokenLinear(channels, channels, bias=False)
        self.key = TokenLinear(channels, channels, bias=False)
        self.value = TokenLinear(channels, channels, bias=False)
        self.attention = attention
        self.project = TokenLinear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = ConvMLP(channels, mlp_ratio)

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        x_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        record: list[Level] | None = None,
    ) -> Tensor:
        """Update (B, C, h0, w0) `x` by what it reads from (B, C, h1, w1) `target`."""
        tokens = to_tokens(x)
        query_side = self.norm1(tokens)
        key_side = query_side if target is x else self.norm1(to_tokens(target))
        message = self.attention(
            to_map(self.query(query_side)),
            to_map(self.key(key_side)),
            to_map(self.value(key_side)),
            x_mask,
            target_mask,
            record,
        )
        tokens = tokens + self.project(to_tokens(message))
        return to_map(tokens + self.mlp(self.norm2(tokens), x_mask))


class LoFTRBlock(nn.Module):
    """LoFTR's encoder layer: the message, merged with its receiver by an MLP, is added."""

    def __init__(self, channels: int, attention: nn.Module) -> None:
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

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        x_mask: Tensor | None = None,
        target_mask: Tensor | None = None,
        record: list[Level] | None = None,
    ) -> Tensor:
        """Update (B, C, h0, w0) `x` by what it reads from (B, C, h1, w1) `target`."""
        tokens, target_tokens = to_tokens(x), to_tokens(target)
        message = self.attention(
            to_map(self.query(tokens)),
            to_map(self.key(target_tokens)),
            to_map(self.value(target_tokens)),
            x_mask,
            target_mask,
            record,
        )
        message = self.norm1(self.merge(to_tokens(message)))
        return to_map(tokens + self.norm2(self.mlp(torch.cat([tokens, message], dim=-1))))


class Transformer(nn.Module):
    """Alternating self and cross layers, with the same weights for both images.

    A self layer updates each image alone. A cross layer of QuadTree blocks updates both images
    from their old values; one of LoFTR blocks updates image 1 from the new image 0: both as
    published.
    """

    def __init__(self, names: Sequence[str], blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self,
        x0: Tensor,
        x1: Tensor,
        mask0: Tensor | None = None,
        mask1: Tensor | None = None,
        recording: Recording | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The maps of both images after all layers.

        Args:
            x0: (B, C, h0, w0); x1: (B, C, h1, w1).
            mask0: (B, h0, w0) bool of valid cells, None means everywhere; mask1 likewise.
            recording: receives the levels of every attention call: image 0 then 1, layer by layer.
        """
        few = x0[:, 0].numel() <= TOGETHER_CELLS
        parallel = all(isinstance(block, QuadTreeBlock) for block in self.blocks)
        if few and parallel and recording is None and x0.shape == x1.shape:
            return self._together(x0, x1, _stack_masks(x0, mask0, x1, mask1))
        for name, block in zip(self.names, self.blocks, strict=True):
            if name == "self":
                x0 = block(x0, x0, mask0, mask0, _new(recording))
                x1 = block(x1, x1, mask1, mask1, _new(recording))
            else:
                new0 = block(x0, x1, mask0, mask1, _new(recording))
                source = new0 if isinstance(block, LoFTRBlock) else x0
                x0, x1 = new0, block(x1, source, mask1, mask0, _new(recording))
        return x0, x1

    def _together(self, x0: Tensor, x1: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """`forward` of QuadTree blocks with both images in one batch."""
        swapped = None if mask is None else mask.roll(len(x0), dims=0)
        both = torch.cat([x0, x1])
        for name, block in zip(self.names, self.blocks, strict=True):
            if name == "self":
                both = block(both, both, mask, mask)
            else:
                both = block(both, torch.cat(both.chunk(2)[::-1]), mask, swapped)
        x0, x1 = both.chunk(2)
        return x0, x1


def build_transformer(config: TransformerConfig, channels: int) -> Transformer:
    """The coarse transformer."""
    blocks: list[nn.Module] = []
    for name in config.layers:
        attention = build_attention(config, channels, name)
        if config.block == "loftr":
            blocks.append(LoFTRBlock(channels, attention))
        else:
            blocks.append(QuadTreeBlock(channels, attention, config.mlp_ratio))
    return Transformer(config.layers, blocks)


def _stack_masks(
    x0: Tensor, mask0: Tensor | None, x1: Tensor, mask1: Tensor | None
) -> Tensor | None:
    """(2B, h, w) masks of both images, None if everything is valid."""
    if mask0 is None and mask1 is None:
        return None
    return torch.cat([_everywhere(x) if m is None else m for x, m in ((x0, mask0), (x1, mask1))])


def _new(recording: Recording | None) -> list[Level] | None:
    if recording is None:
        return None
    recording.append([])
    return recording[-1]


def _everywhere(x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    return torch.ones(b, h, w, dtype=torch.bool, device=x.device)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h, w, C); a view."""
    return x.permute(0, 2, 3, 1)


def to_map(tokens: Tensor) -> Tensor:
    """(B, h, w, C) to (B, C, h, w); a view in channels-last memory."""
    return tokens.permute(0, 3, 1, 2)
