"""Runs in forks that are killed, and train.py on planes as a program.

python training_driver.py WORKERS WORDS...           train.py on planes
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

import train as program
from conf import compose
from matcher.training import checkpointing
from matcher.training import trainer as training_trainer
from tests.helpers.forks import finish, fork, kill
from tests.helpers.planes import PlaneData

STEPS = 14
WORDS = (
    "model=tiny", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.progress=false",
    "trainer.precision=bf16-mixed", f"trainer.max_steps={STEPS}", "trainer.checkpoint_steps=2",
    "optim.warmup=5", "resume=auto",
)  # fmt: skip


def weights_digest(folder: Path) -> str:
    """Of the model and its average in the newest checkpoint."""
    path = checkpointing.newest_intact(folder)
    if path is None:
        return "none"
    state = checkpointing.load_checkpoint(path)
    digest = hashlib.sha256(str(state["global_step"]).encode())
    for key, value in sorted(state["state_dict"].items()):
        digest.update(
            key.encode() + value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def run(folder: Path, workers: int) -> None:
    program.train(compose("train", [*WORDS, f"folder={folder}"]), PlaneData(workers=workers))


class Witness(PlaneData):
    """Every process writes the digest of its parameters beside the checkpoints."""

    def teardown(self, stage: str) -> None:
        module = self.trainer.lightning_module
        digest = hashlib.sha256()
        for parameter in module.model.parameters():
            digest.update(parameter.detach().contiguous().view(-1).numpy().tobytes())
        path = Path(self.trainer.default_root_dir) / f"rank_{module.global_rank}.txt"
        path.write_text(digest.hexdigest())


def train_together(folder: Path, words: Sequence[str], processes: int = 2) -> list[int]:
    """Exit codes of processes that train one model, started from outside as torchrun does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def train(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        program.train(compose("train", [*words, f"folder={folder}"]), Witness())

    return [finish(child) for child in [fork(partial(train, rank)) for rank in range(processes)]]


def kills(folder: Path, count: int, workers: int, seed: int) -> dict[str, Any]:
    """A run that is killed `count` times and resumed, and one that is left alone."""
    start = time.monotonic()
    code = finish(fork(lambda: run(folder / "whole", workers)))
    seconds = time.monotonic() - start
    random.seed(seed)
    seen = []
    for _ in range(count):
        kill(fork(lambda: run(folder / "killed", workers)), random.uniform(0.2, 0.7) * seconds)
        newest = checkpointing.newest_intact(folder / "killed")
        seen.append(newest.name if newest else "none")
    codes = [code, finish(fork(lambda: run(folder / "killed", workers)))]
    digests = [weights_digest(folder / name) for name in ("whole", "killed")]
    return {"codes": codes, "digests": digests, "checkpoints": seen, "seconds": seconds}


def saves(folder: Path, count: int) -> dict[str, Any]:
    """Whether every kill leaves a checkpoint at least as new as the last that was acknowledged."""
    state = {"state_dict": {"w": torch.randn(300_000)}, "global_step": 0}
    start = time.monotonic()
    finish(fork(lambda: checkpointing.save_checkpoint(folder, 0, state, 2)))
    seconds = time.monotonic() - start
    lost, steps = 0, []
    random.seed(count)

    def write(step: int, acknowledge: int) -> None:
        while True:
            step += 1
            checkpointing.save_checkpoint(folder, step, state, 2)
            os.write(acknowledge, step.to_bytes(8, "big"))

    last = 0
    for _ in range(count):
        read, acknowledge = os.pipe()
        begin = last
        child = fork(lambda a=acknowledge, s=begin: write(s, a))
        os.close(acknowledge)
        kill(child, random.uniform(0.0, 3.0) * seconds)
        while data := os.read(read, 8):
            last = int.from_bytes(data, "big")
        os.close(read)
        newest = checkpointing.newest_intact(folder)
        if (
            newest is None
            or not checkpointing.load_checkpoint(newest)
            or int(newest.name[5:13]) < last
        ):
            lost += 1
        else:
            last = int(newest.name[5:13])
        steps.append(last)
    return {"lost": lost, "steps": steps}


if __name__ == "__main__":
    torch.set_num_threads(1)
    training_trainer.RANK_TIMEOUT = timedelta(seconds=int(os.environ.get("RANK_SECONDS", "600")))
    program.build_datamodule = lambda *_: Witness(workers=int(sys.argv[1]))
    sys.exit(program.main(sys.argv[2:]))
