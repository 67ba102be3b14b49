"""Loader processes that die, hang, or meet a sample that cannot be read."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch.utils.data
from torch.utils.data import Dataset

import train as program
from conf import compose
from data import datamodule
from data.datamodule import PairData, build_datamodule
from matcher.errors import ImageError
from matcher.structures import ImagePair
from tests.helpers.planes import PlaneData


def run(folder: Path, *more: str, data: PlaneData | PairData | None = None) -> dict[str, float]:
    words = f"model=tiny folder={folder} trainer.accelerator=cpu trainer.threads=1 optim.warmup=5"
    words += " trainer.progress=false trainer.log_every=1"
    return program.train(compose("train", [*words.split(), *more]), data or PlaneData())


class Deadly(PlaneData):
    """A loader process is killed once, or every time it reaches the pair."""

    def __init__(self, flag: Path, times: int) -> None:
        super().__init__(batch_size=2, workers=1)
        self.flag, self.times = flag, times

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        fetch = loader.dataset.__getitem__

        def get(key: Any) -> ImagePair:
            deaths = len(self.flag.read_bytes()) if self.flag.exists() else 0
            if key[0] * 13 + key[1] > 5 and key[0] == 1 and deaths < self.times:
                with self.flag.open("ab") as file:
                    file.write(b"x")
                os.kill(os.getpid(), signal.SIGKILL)
            return fetch(key)

        loader.dataset.__class__ = type("Killed", (type(loader.dataset),), {})
        loader.dataset.__class__.__getitem__ = lambda self, key: get(key)  # pyright: ignore
        return loader


def test_one_dead_loader_process_is_survived(tmp_path: Path) -> None:
    data = Deadly(tmp_path / "deaths", times=1)
    metrics = run(tmp_path, "trainer.max_steps=10", "trainer.checkpoint_steps=2", data=data)
    assert (metrics["steps"], metrics["pairs_seen"]) == (10, 20)
    assert (tmp_path / "deaths").read_bytes() == b"x"
    plain = run(tmp_path / "plain", "trainer.max_steps=10")
    assert plain["train/loss"] == metrics["train/loss"]


def test_a_loader_process_that_dies_again_ends_the_run(tmp_path: Path) -> None:
    data = Deadly(tmp_path / "deaths", times=9)
    with pytest.raises(program.LoaderError, match=r"after \d+ pairs, the last"):
        run(tmp_path, "trainer.max_steps=10", "trainer.checkpoint_steps=2", data=data)


class Samples(Dataset[Any]):
    """Synthetic scenes; sample 6 of the first epoch is not as it should be, once or always."""

    def __init__(self, scenes: Any, flag: Path, fault: str, times: int) -> None:
        self.scenes, self.flag, self.fault, self.times = scenes, flag, fault, times

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        faults = len(self.flag.read_bytes()) if self.flag.exists() else 0
        if key == (0, 6) and faults < self.times:
            with self.flag.open("ab") as file:
                file.write(b"x")
            if self.fault == "hang":
                time.sleep(6)  # Four times as long as the loader is waited for.
            if self.fault == "bug":
                raise RuntimeError("a mistake in the dataset")
            raise ImageError(106, "corrupt_training.txt", "2 of 9 samples cannot be read")
        return self.scenes[key]


class Faulty(PairData):
    fault, flag, times = "", Path(), 1

    def _training(self) -> Any:
        scenes, order = super()._training()
        return Samples(scenes, self.flag, self.fault, self.times), order


def faulty(folder: Path, fault: str, times: int) -> PairData:
    values = {
        "batch_size": 2,
        "workers": 1,
        "synthetic": {"size": [64, 96], "pairs": 9, "texture_side": 64, "procedural": 9},
    }
    data = Faulty(build_datamodule(values, 1).config, 1)
    data.fault, data.flag, data.times = fault, folder / "faults", times
    return data


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_sample_ends_the_run_as_what_it_is(tmp_path: Path, workers: int) -> None:
    data = faulty(tmp_path, "corrupt", times=9)
    object.__setattr__(data.config, "workers", workers)
    with pytest.raises(ImageError, match="2 of 9 samples") as caught:
        run(tmp_path, "trainer.max_steps=9", data=data)
    assert caught.value.exit_code == 3
    assert data.flag.read_bytes() == b"x"  # not tried again


def test_a_mistake_in_a_dataset_is_no_dead_loader(tmp_path: Path) -> None:
    data = faulty(tmp_path, "bug", times=9)
    with pytest.raises(RuntimeError, match="a mistake in the dataset"):
        run(tmp_path, "trainer.max_steps=9", data=data)
    assert data.flag.read_bytes() == b"x"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datamodule, "LOADER_TIMEOUT", 1.5)
    # How long torch waits for a process to end by itself before it ends it.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_loader_process_that_hangs_is_survived(tmp_path: Path) -> None:
    metrics = run(tmp_path, "trainer.max_steps=5", data=faulty(tmp_path, "hang", times=1))
    assert (metrics["steps"], metrics["pairs_seen"]) == (5, 10)


@pytest.mark.usefixtures("impatient")
def test_a_loader_process_that_hangs_again_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        program.LoaderError, match=r"after \d+ pairs, the last \S+ \S+: .*timed out"
    ):
        run(tmp_path, "trainer.max_steps=5", data=faulty(tmp_path, "hang", times=9))
