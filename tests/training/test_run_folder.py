"""A folder belongs to one run: what may go on in it, with which options, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback

import train as program
from conf import compose
from matcher.errors import CheckpointError, StorageError, UsageError
from matcher.training import checkpointing
from matcher.training.config import RunConfig
from matcher.training.module import MatcherModule
from matcher.training.trainer import build_trainer
from matcher.validation.checked import config_from_dict
from tests.helpers.planes import PlaneData


def words(folder: Path, *more: str) -> list[str]:
    text = f"folder={folder} trainer.accelerator=cpu trainer.threads=1 trainer.progress=false"
    return ["model=tiny", *text.split(), "trainer.log_every=1", "optim.warmup=2", *more]


def run(folder: Path, *more: str) -> dict[str, float]:
    return program.train(compose("train", words(folder, *more)), PlaneData())


def test_another_run_does_not_begin_in_a_folder_with_checkpoints(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=3", "trainer.checkpoint_steps=1")
    newest, older = checkpointing.checkpoints(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    for more in ((), (f"resume={older}",), ("seed=3",)):
        with pytest.raises(UsageError, match=f"E204.*{newest.name}.*resume=auto"):
            run(tmp_path, *more)
    assert checkpointing.checkpoints(tmp_path) == [newest, older]
    assert (tmp_path / "config.json").read_bytes() == before
    assert run(tmp_path / "other", f"resume={older}", "trainer.max_steps=4")["steps"] == 4
    assert run(tmp_path, f"resume={newest}", "trainer.max_steps=4")["steps"] == 4


def test_the_options_of_a_resumed_run_count(tmp_path: Path) -> None:
    """A schedule that stays at its height, so that the rate is the one of the options."""
    constant = ("optim.schedule=multistep", "optim.milestones=[]", "optim.warmup=0")
    run(tmp_path, "trainer.max_steps=2", "optim.lr=1e-3", *constant)
    newest = checkpointing.newest_intact(tmp_path)
    changed = words(
        tmp_path, "trainer.max_steps=4", "optim.lr=5e-4", "optim.weight_decay=0.3", *constant
    )
    values = compose("train", changed)
    values.pop("data")
    config = config_from_dict(RunConfig, values)
    seen: list[tuple[float, float]] = []

    class Look(Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            (group,) = optimizer.param_groups
            seen.append((group["lr"], group["weight_decay"]))

    build_trainer(config, 4, [Look()]).fit(
        MatcherModule(config, 2), datamodule=PlaneData(), ckpt_path=newest
    )
    assert seen == [(5e-4, 0.3)] * 2


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=1")
    with pytest.raises(CheckpointError, match="another model"):
        run(tmp_path, "resume=auto", "model.transformer.topks=[4,4,4]")


def test_a_renamed_checkpoint_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    run(tmp_path / "a", "trainer.max_steps=1")
    newest = checkpointing.newest_intact(tmp_path / "a")
    assert newest is not None
    for size in (0, 100, newest.stat().st_size // 2):
        (tmp_path / "mine.ckpt").write_bytes(newest.read_bytes()[:size])
        with pytest.raises(StorageError, match=r"E402 .*mine\.ckpt: is damaged"):
            run(tmp_path / "b", f"resume={tmp_path / 'mine.ckpt'}")


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".quadmatch-7-00ff.part").write_bytes(b"half")
    run(tmp_path, "trainer.max_steps=1")
    assert not list(tmp_path.glob(".quadmatch-*"))


def test_checkpoints_are_saved_between_steps_only(tmp_path: Path) -> None:
    """Two batches of two pairs a step: a checkpoint between them would lose a gradient."""
    options = ("trainer.max_steps=3", "trainer.accumulate=2", "trainer.checkpoint_steps=1")
    run(tmp_path, *options, "trainer.keep=9")
    saved = map(checkpointing.load_checkpoint, checkpointing.checkpoints(tmp_path))
    assert [(s["global_step"], s["matcher"]["pairs_seen"]) for s in saved] == [
        (3, 12), (2, 8), (1, 4)
    ]  # fmt: skip


def test_a_run_of_several_batches_a_step_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = ("trainer.accumulate=2", "optim.schedule=multistep", "optim.milestones=[]")
    run(tmp_path / "killed", "trainer.max_steps=2", *options)
    again = run(tmp_path / "killed", "trainer.max_steps=4", "resume=auto", *options)
    assert (
        again["train/loss"]
        == run(tmp_path / "whole", "trainer.max_steps=4", *options)["train/loss"]
    )
