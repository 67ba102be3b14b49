"""ResNet with a feature pyramid: an image to a coarse and a fine map (LoFTR's backbone)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from matcher.config import BackboneConfig
from matcher.structures import FeatureMaps


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, with as few maps held at a time as can be."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y.add_(self.shortcut(x)), inplace=True)


class WideMerge(nn.Module):
    """One step down the published pyramid: lift the finer map to the coarser width, merge."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.lateral = conv1x1(fine, coarse)
        self.merge = nn.Sequential(
            conv3x3(coarse, coarse),
            nn.BatchNorm2d(coarse),
            nn.LeakyReLU(inplace=True),
            conv3x3(coarse, fine),
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.merge(
            self.lateral(fine).add_(
                F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=True)
            )
        )


class LeanMerge(nn.Module):
    """One step down the lean pyramid: bring the coarser map to the finer width, merge."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.reduce = conv1x1(coarse, fine)
        self.merge = nn.Sequential(conv3x3(fine, fine), nn.BatchNorm2d(fine), nn.ReLU(inplace=True))
        self.project: nn.Module = conv1x1(fine, fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = F.interpolate(self.reduce(coarse), scale_factor=2.0, mode="nearest")
        return self.project(self.merge(up.add_(fine)))


class Backbone(nn.Module):
    """Image to feature maps at 1/8 + 1/2 or 1/16 + 1/4.

    With symmetric odd kernels, cell i of the coarse map is centered on pixel 8i (16i).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        dims = config.block_dims
        self.stem = nn.Conv2d(1, config.initial_dim, 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(config.initial_dim)
        self.stages = nn.ModuleList()
        inputs = config.initial_dim
        for i, (dim, depth) in enumerate(zip(dims, config.depths, strict=True)):
            stride = 1 if i == 0 else 2
            blocks = [
                ResidualBlock(inputs if j == 0 else dim, dim, stride if j == 0 else 1)
                for j in range(depth)
            ]
            self.stages.append(nn.Sequential(*blocks))
            inputs = dim
        self.output = conv1x1(dims[-1], dims[-1])
        merge = WideMerge if config.pyramid == "wide" else LeanMerge
        self.merges = nn.ModuleList([merge(dims[-1], dims[-2]), merge(dims[-2], dims[-3])])
        self.apply(_initialize)

    def forward(self, image: Tensor) -> FeatureMaps:
        """(B, 1, H, W) gray in [0, 1]; H and W divisible by the coarse stride."""
        x = F.relu(self.stem_norm(self.stem(image)), inplace=True)
        maps: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            maps = [*maps[-2:], x]
        coarse = self.output(maps.pop())
        middle = self.merges[0](coarse, maps.pop())
        return FeatureMaps(coarse, self.merges[1](middle, maps.pop()))


def _initialize(module: nn.Module) -> None:
    # Drawing numbers on the meta device would import the compiler of torch, which takes seconds.
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
