"""Runs that are killed with SIGKILL and resumed end as runs that were left alone."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from matcher.config import MatcherConfig
from matcher.errors import StorageError, UsageError
from matcher.network.model import build_matcher
from matcher.training import checkpointing
from matcher.validation.checked import config_from_dict
from tests.helpers import training_driver

DRIVER = Path(training_driver.__file__)


def check_kills(folder: Path, kills: int, workers: int, seed: int = 0) -> None:
    result = training_driver.kills(folder, kills, workers, seed)
    assert result["codes"] == [0, 0]
    steps = [0 if name == "none" else int(name[5:13]) for name in result["checkpoints"]]
    assert min(steps) < training_driver.STEPS, "no kill came before the end"
    assert result["digests"][0] == result["digests"][1] != "none"


@pytest.mark.parametrize(("kills", "workers"), [(3, 0), (2, 2)])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, kills: int, workers: int) -> None:
    check_kills(tmp_path, kills, workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("part", range(5))
def test_twenty_kills_a_worker_count(tmp_path: Path, workers: int, part: int) -> None:
    check_kills(tmp_path, 4, workers, seed=1 + part)


def test_a_kill_during_a_save_loses_no_checkpoint(tmp_path: Path) -> None:
    result = training_driver.saves(tmp_path, 15)
    assert result["lost"] == 0
    assert result["steps"][-1] > 0


@pytest.mark.slow
def test_a_hundred_kills_during_saves(tmp_path: Path) -> None:
    assert training_driver.saves(tmp_path, 100)["lost"] == 0


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for step in (1, 2):
        state = {"global_step": step, "state_dict": {"w": torch.ones(3) * step}}
        newest = checkpointing.save_checkpoint(tmp_path, step, state, keep=2)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    intact = checkpointing.newest_intact(tmp_path)
    assert intact is not None
    assert checkpointing.load_checkpoint(intact)["global_step"] == 1
    with pytest.raises(StorageError, match="damaged"):
        checkpointing.load_checkpoint(newest)
    with pytest.raises(UsageError, match="no such"):
        checkpointing.load_checkpoint(tmp_path / "none.ckpt")


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        checkpointing.save_checkpoint(tmp_path, step, {"global_step": step}, keep=2)
    assert [p.name[:13] for p in checkpointing.checkpoints(tmp_path)] == [
        "step_00000004",
        "step_00000003",
    ]
    assert not list(tmp_path.glob(".*.part"))


def test_a_checkpoint_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make"):
        checkpointing.save_checkpoint(tmp_path / "file", 1, {}, keep=1)


TOGETHER = ("model=tiny", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp")
TOGETHER += ("trainer.threads=1", "trainer.progress=false", "resume=auto")


def check_trained_together(folder: Path, steps: int) -> None:
    newest = checkpointing.newest_intact(folder)
    assert newest is not None
    state = checkpointing.load_checkpoint(newest)
    assert state["global_step"] == steps
    assert state["matcher"]["pairs_seen"] == steps * 2 * 2
    digests = {(folder / f"rank_{rank}.txt").read_text() for rank in (0, 1)}
    assert len(digests) == 1, "the processes have different weights"


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """DDP on the CPU: twice the pairs a step, one set of weights."""
    words = [*TOGETHER, "trainer.max_steps=2"]
    assert training_driver.train_together(tmp_path, words) == [0, 0]
    check_trained_together(tmp_path, 2)


@pytest.mark.slow
def test_two_processes_of_the_program_resume(tmp_path: Path) -> None:
    """Two runs, of which the first process starts the second."""
    words = [*TOGETHER, f"folder={tmp_path}"]
    for limit in (3, 5):
        done = subprocess.run(
            [sys.executable, str(DRIVER), "0", *words, f"trainer.max_steps={limit}"],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        check_trained_together(tmp_path, limit)


def second_process(folder: Path) -> int | None:
    """The process that the first of two that train in `folder` has started."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"folder={folder}".encode() in words and b"LOCAL_RANK=1" in environment:
            return int(entry.name)
    return None


@contextmanager
def two_processes(
    folder: Path, rank_seconds: int = 600
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Two that train together until they are stopped, the second by its number; they have a
    checkpoint, and wait `rank_seconds` for one another."""
    words = f"model=tiny folder={folder} trainer.accelerator=cpu trainer.devices=2"
    words += " trainer.threads=1 trainer.progress=false trainer.checkpoint_steps=2"
    main = subprocess.Popen(
        [sys.executable, str(DRIVER), "0", *words.split(), "trainer.max_steps=100000"],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RANK_SECONDS": str(rank_seconds)},
    )
    try:
        while main.poll() is None and not checkpointing.checkpoints(folder):
            time.sleep(0.1)
        second = second_process(folder)
        assert second is not None
        yield main, second
    finally:
        main.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    with two_processes(tmp_path) as (main, second):
        os.kill(second, signal.SIGKILL)
        assert main.wait(timeout=120) != 0
    assert checkpointing.newest_intact(tmp_path) is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_that_hangs_ends_the_others(tmp_path: Path) -> None:
    with two_processes(tmp_path, rank_seconds=15) as (main, second):
        os.kill(second, signal.SIGSTOP)
        try:
            assert main.wait(timeout=120) != 0
        finally:
            os.kill(second, signal.SIGKILL)
    assert checkpointing.newest_intact(tmp_path) is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("asked", [(0,), (1,), (0, 1)])
def test_processes_that_are_asked_to_end_save_what_they_have(
    tmp_path: Path, asked: tuple[int, ...]
) -> None:
    """One of them, or all at once as a cluster does."""
    with two_processes(tmp_path) as (main, second):
        for rank in asked:
            os.kill((main.pid, second)[rank], signal.SIGTERM)
        assert main.wait(timeout=120) == 128 + signal.SIGTERM
    newest = checkpointing.newest_intact(tmp_path)
    assert newest is not None
    state = checkpointing.load_checkpoint(newest)
    assert (tmp_path / "weights.safetensors").is_file()
    weights, config = state["state_dict"], state["matcher"]["config"]["model"]
    digest = hashlib.sha256()
    for name, _ in build_matcher(config_from_dict(MatcherConfig, config)).named_parameters():
        digest.update(weights[f"model.{name}"].contiguous().view(-1).numpy().tobytes())
    assert {(tmp_path / f"rank_{rank}.txt").read_text() for rank in (0, 1)} == {digest.hexdigest()}
