"""Time of training steps on one batch, by names that other commits have too.

    PYTHONPATH=TREE python -P benchmarks/time_steps.py BATCH FOLDER THREADS

Trains ``experiment=compact`` from the bundled weights on the batch that `torch.save` has put into
the file BATCH, as the images and the geometry of an `ImagePair` by name, and keeps the run in
FOLDER. Every line on stdin is answered, when the next step is done, with one of JSON on stdout:
seconds by the clock and of the processor, and the largest memory so far in MB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from matcher.structures import ImagePair, PairGeometry
from train import train


class Steps(IterableDataset[ImagePair]):
    """The same batch over and over, each handed out when a line asks for its step."""

    def __init__(self, pair: ImagePair) -> None:
        self.pair = pair

    def __iter__(self) -> Iterator[ImagePair]:
        for _ in sys.stdin:
            clock, processor = time.perf_counter(), time.process_time()
            yield self.pair
            seconds = time.perf_counter() - clock, time.process_time() - processor
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps([*seconds, peak]), flush=True)


class OneBatch(LightningDataModule):
    """What train.py asks of its data."""

    def __init__(self, pair: ImagePair) -> None:
        super().__init__()
        self.pair = pair
        self.batch_size = len(pair.image0)
        self.pairs_an_epoch = 10_000

    def train_dataloader(self) -> DataLoader[ImagePair]:
        return DataLoader(Steps(self.pair), batch_size=None)


def configuration(words: list[str]) -> dict[str, Any]:
    """The configuration of train.py, by the name that the commit has for it."""
    try:
        from conf import compose_run
    except ImportError:
        from data.compose import compose  # pyright: ignore[reportMissingImports]

        return compose("train", words)
    return compose_run(words)


def main(batch: str, folder: str, threads: str) -> None:
    weights = next(Path("matcher").rglob("compact.safetensors"))
    values = torch.load(batch, weights_only=True)
    geometry = PairGeometry(**values.pop("geometry"))
    config = configuration([
        "experiment=compact", f"init_weights={weights}", f"folder={folder}",
        "trainer.accelerator=cpu", f"trainer.threads={threads}", "trainer.validate_steps=0",
        "trainer.max_steps=1000000", "trainer.progress=false", "trainer.checkpoint_minutes=0",
        "trainer.export_minutes=0",
    ])  # fmt: skip
    train(config, OneBatch(ImagePair(**values, geometry=geometry)))  # pyright: ignore


if __name__ == "__main__":
    main(*sys.argv[1:])
