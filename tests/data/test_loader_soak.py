"""Corrupt samples and killed loader processes: ten runs, each equal to a quiet one (R18)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import train as program
from conf import compose
from data.corrupt import Replacing
from data.order import PairStream
from matcher.errors import ImageError
from matcher.structures import ImagePair
from tests.helpers.planes import SHIFTS, PlaneData, plane_pair, shuffled

PAIRS, STEPS, BATCH = 200, 30, 2
ORDER = list(shuffled(PAIRS, seed=1)(0))
CORRUPT = {ORDER[11], ORDER[41]}  # one in a hundred


class Files(Dataset[ImagePair]):
    """Planes, two of which cannot be read; fetching `deadly` kills the process, once."""

    def __init__(self, deadly: int | None, flag: Path) -> None:
        self.deadly, self.flag = deadly, flag

    def __len__(self) -> int:
        return PAIRS

    def __getitem__(self, key: tuple[int, int]) -> ImagePair:
        index = key[1]
        if index == self.deadly and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if index in CORRUPT:
            raise ImageError(102, f"{index}.jpg", "broken")
        return plane_pair(index, SHIFTS[index % len(SHIFTS)], (64, 96))


class Soaked(PlaneData):
    def __init__(self, folder: Path, workers: int, deadly: int | None) -> None:
        super().__init__(batch_size=BATCH, pairs=PAIRS, workers=workers)
        files = Files(deadly, folder / "killed")
        self.files = Replacing(files, folder / "corrupt.txt", limit=0.01)

    def train_dataloader(self) -> Any:
        stream = PairStream(lambda _: ORDER, BATCH, start=self.trainer.lightning_module.pairs_seen)
        return DataLoader(
            self.files,
            batch_sampler=stream,
            num_workers=self.workers,
            collate_fn=ImagePair.collate,
            generator=torch.Generator(),
        )


def run(folder: Path, workers: int, deadly: int | None) -> tuple[float, set[int]]:
    folder.mkdir()
    data = Soaked(folder, workers, deadly)
    options = f"model=tiny folder={folder} trainer.accelerator=cpu trainer.threads=1 optim.warmup=5"
    options += f" trainer.progress=false trainer.log_every=1 trainer.max_steps={STEPS}"
    options += " trainer.checkpoint_steps=4"
    metrics = program.train(compose("train", options.split()), data)
    assert (metrics["steps"], metrics["pairs_seen"]) == (STEPS, STEPS * BATCH)
    return metrics["train/loss"], data.files.notes.indices()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_killed_loader_processes_change_nothing(tmp_path: Path) -> None:
    quiet = run(tmp_path / "quiet", 0, None)
    assert quiet[1] == CORRUPT
    for i in range(10):
        folder = tmp_path / str(i)
        deadly = ORDER[3 + 5 * i]
        assert run(folder, 1 + i % 2, None if deadly in CORRUPT else deadly) == quiet
        assert (folder / "killed").exists() or deadly in CORRUPT
