"""Pairs for the tests of training: noise on a plane, seen by a camera that moved sideways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from data.order import Key, PairStream
from matcher.structures import ImagePair, PairGeometry

FOCAL, DEPTH = 100.0, 2.0
SHIFTS = (-16, 0, 8, 24)


def plane_pair(seed: int, shift: int = 16, size: tuple[int, int] = (64, 96)) -> ImagePair:
    """Pixel (x, y) of image 0 is pixel (x - shift, y) of image 1."""
    h, w = size
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 1, h // 4, (w + abs(shift)) // 4 + 1, generator=generator)
    texture = F.interpolate(noise, scale_factor=4.0, mode="bicubic").clamp(0, 1)
    left0, left1 = max(-shift, 0), max(shift, 0)
    K = torch.tensor([[[FOCAL, 0.0, w / 2], [0.0, FOCAL, h / 2], [0.0, 0.0, 1.0]]])
    T = torch.eye(4)[None].clone()
    T[0, 0, 3] = -shift * DEPTH / FOCAL
    depth = torch.full((1, h, w), DEPTH)
    scale = torch.ones(1, 2)
    return ImagePair(
        texture[..., left0 : left0 + w],
        texture[..., left1 : left1 + w],
        scale,
        scale,
        geometry=PairGeometry(depth, depth, K, K, T),
        names=((f"plane{seed}_0", f"plane{seed}_1"),),
    )


class Planes(Dataset[ImagePair]):
    """Pair `index` of an epoch."""

    def __init__(self, size: tuple[int, int] = (64, 96)) -> None:
        self.size = size

    def __getitem__(self, key: Key) -> ImagePair:  # pyright: ignore
        epoch, index = key
        return plane_pair(epoch * 1000 + index, SHIFTS[index % 4], self.size)


class PlaneData(LightningDataModule):
    """Endless planes for a run of train.py."""

    def __init__(
        self,
        batch_size: int = 2,
        pairs: int = 13,
        workers: int = 0,
        size: tuple[int, int] = (64, 96),
    ) -> None:
        super().__init__()
        self.batch_size, self.pairs, self.workers, self.size = batch_size, pairs, workers, size

    @property
    def pairs_an_epoch(self) -> int:
        return self.pairs

    def train_dataloader(self) -> DataLoader[ImagePair]:
        trainer = self.trainer
        stream = PairStream(
            shuffled(self.pairs, seed=1),
            self.batch_size,
            start=trainer.lightning_module.first_pair,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        return DataLoader(
            Planes(self.size),
            batch_sampler=stream,
            num_workers=self.workers,
            collate_fn=ImagePair.collate,
            generator=torch.Generator(),
        )

    def val_dataloader(self) -> DataLoader[ImagePair]:
        pairs = [plane_pair(-1 - i, SHIFTS[i], self.size) for i in range(4)]
        return DataLoader(pairs, batch_size=2, collate_fn=ImagePair.collate)  # pyright: ignore


def shuffled(size: int, seed: int) -> Callable[[int], Sequence[int]]:
    """An order of `size` indices for each epoch, a function of (seed, epoch) alone."""

    def order(epoch: int) -> Sequence[int]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return torch.randperm(size, generator=generator).tolist()

    return order
