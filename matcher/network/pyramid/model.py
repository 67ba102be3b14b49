"""The pyramid: an image of any size in, four maps or the logits of classes out."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.network.block import TokenLinear, to_map, to_tokens
from matcher.network.pyramid.attention import build_attention, depthwise
from matcher.network.pyramid.config import NAMES, PyramidConfig
from matcher.validation.checked import entry_of


class PatchEmbedding(nn.Module):
    """A convolution with a stride, and a normalization."""

    def __init__(self, channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H / stride, W / stride, dim) tokens of (B, C, H, W) maps."""
        return self.norm(to_tokens(self.proj(x)))


class DepthwiseConvolution(nn.Module):
    """The convolution of an MLP, a level of names deeper as in published files."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = depthwise(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x)


class PyramidMLP(nn.Module):
    """Two linear layers with a depthwise convolution between them (PVTv2's, without its ReLU)."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = TokenLinear(channels, channels * ratio)
        self.dwconv = DepthwiseConvolution(channels * ratio)
        self.fc2 = TokenLinear(channels * ratio, channels)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, h, w, C) tokens; (B, h, w) bool of valid ones."""
        hidden = self.fc1(tokens)
        if mask is not None:
            hidden = hidden * mask[..., None]
        return self.fc2(F.gelu(to_tokens(self.dwconv(to_map(hidden)))))


class PyramidBlock(nn.Module):
    """Pre-norm attention, then an MLP; in training each is left out by chance for some images."""

    def __init__(self, config: PyramidConfig, stage: int, block: int, drop: float) -> None:
        super().__init__()
        channels = config.dims[stage]
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = build_attention(config, stage, block)
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = PyramidMLP(channels, config.mlp_ratios[stage])
        self.drop = drop

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, h, w, C) tokens; (B, h, w) bool of valid ones."""
        tokens = tokens + self._kept(self.attn(self.norm1(tokens), mask))
        return tokens + self._kept(self.mlp(self.norm2(tokens), mask))

    def _kept(self, x: Tensor) -> Tensor:
        """Stochastic depth (Huang et al., ECCV 2016)."""
        if not self.training or self.drop == 0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.drop
        return x * keep / (1 - self.drop)


class Pyramid(nn.Module):
    """Four stages of QuadTree attention on maps that halve (Tang et al., ICLR 2022; PVTv2, Wang et
    al., 2022), with the names of the published files."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        channels = (3, *config.dims[:-1])
        drops = iter(_rising(config.drop_path, sum(config.depths)))
        for stage, (dim, depth) in enumerate(zip(config.dims, config.depths, strict=True)):
            kernel, stride = (3, 2) if stage else (7, 4)
            embedding = PatchEmbedding(channels[stage], dim, kernel, stride)
            blocks = [PyramidBlock(config, stage, block, next(drops)) for block in range(depth)]
            self.add_module(f"patch_embed{stage + 1}", embedding)
            self.add_module(f"block{stage + 1}", nn.ModuleList(blocks))
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(dim, eps=1e-6))
        self.head = nn.Linear(config.dims[-1], config.classes) if config.classes else None
        self.apply(initialize)

    def features(self, image: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """The normed maps of all stages.

        Args:
            image: (B, 3, H, W) of any size, normalized as in training. It is padded on the right
                and at the bottom, and what is padded takes no part.
            mask: (B, H, W) bool of pixels that belong to the images; None means all. A cell is
                valid if its first pixel is.

        Returns:
            Four maps (B, dims[i], ceil(H / s), ceil(W / s)), s = 4, 8, 16, 32; 0 where not valid.
        """
        size = image.shape[-2:]
        x, mask = self._padded(image, mask)
        maps = []
        for stage in range(4):
            x, mask = self._stage(stage, x, mask)
            step = 2 ** (stage + 2)
            maps.append(x[..., : math.ceil(size[0] / step), : math.ceil(size[1] / step)])
        return maps

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, classes) logits of images as of `features`.

        Raises:
            ValueError: it has no head.
        """
        if self.head is None:
            raise ValueError("a pyramid without a head; give classes")
        x = self.features(image, mask)[-1]
        if mask is None:
            return self.head(x.mean(dim=(2, 3)))
        cells = mask[:, ::32, ::32].sum(dim=(1, 2)).clamp(min=1)
        return self.head(x.sum(dim=(2, 3)) / cells[:, None])

    def _stage(self, stage: int, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The normed map of a stage of what the one before gave, and its mask."""
        step = 2 if stage else 4
        mask = None if mask is None else mask[:, ::step, ::step]
        number = stage + 1
        tokens = self.get_submodule(f"patch_embed{number}")(x)
        for block in self.get_submodule(f"block{number}").children():
            tokens = block(tokens, mask)
        tokens = self.get_submodule(f"norm{number}")(tokens)
        if mask is not None:
            tokens = tokens.masked_fill(~mask[..., None], 0.0)
        return to_map(tokens), mask

    def _padded(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Images on whole cells, 0 outside, and (B, H', W') bool of their pixels; None if all."""
        h, w = image.shape[-2:]
        multiple = self.config.multiple
        border = (0, -w % multiple, 0, -h % multiple)
        if mask is None and not any(border):
            return image, None
        if mask is None:
            mask = torch.ones_like(image[:, 0], dtype=torch.bool)
        image = image.masked_fill(~mask[:, None], 0.0)
        return F.pad(image, border), F.pad(mask, border)


def build_pyramid(config: PyramidConfig | str) -> Pyramid:
    """A pyramid of a configuration, or of one of `NAMES`, with random weights.

    Raises:
        UsageError: there is no such name (E201).
    """
    if isinstance(config, str):
        config = entry_of("model", config, NAMES)
    return Pyramid(config)


def _rising(highest: float, count: int) -> list[float]:
    """`count` numbers from 0 to `highest`."""
    return [highest * i / max(1, count - 1) for i in range(count)]


def initialize(module: nn.Module) -> None:
    """Draw the weights of a part as published: convolutions and linear layers."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        fan = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
