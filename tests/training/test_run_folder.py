"""A folder belongs to one run: what may go on in it, with which options, and what is kept."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

import train as program
from conf import compose
from matcher.errors import CheckpointError, StorageError, UsageError
from matcher.files import only_writer
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


def test_a_step_takes_all_its_batches_where_their_number_changes(tmp_path: Path) -> None:
    """And validations keep to the steps."""
    run(tmp_path, "trainer.max_steps=3")
    options = ("trainer.accumulate=2", "trainer.validate_steps=2", "trainer.log_every=1")
    metrics = run(tmp_path, "trainer.max_steps=6", "resume=auto", *options)
    assert metrics["pairs_of_run"] == 3 * 2 * 2
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split()[1] for line in lines if "validation" in line] == ["4", "6"]
    with next(tmp_path.glob("logs/version_1/metrics.csv")).open() as file:
        rows = [row["step"] for row in csv.DictReader(file) if row["train/loss"]]
    assert rows == ["3", "4", "5"]


def test_a_second_training_in_a_folder_is_refused(tmp_path: Path) -> None:
    with only_writer(tmp_path, ""):
        for more in ((), ("resume=auto",), ("seed=3", "resume=auto")):
            with pytest.raises(UsageError, match=r"E207 .*another process writes to it.*name="):
                run(tmp_path, *more)
    assert not (tmp_path / "config.json").exists()


def test_the_lock_of_a_killed_process_is_gone(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with only_writer(tmp_path, ""):
                os.write(write, b"x")
                signal.pause()
        finally:
            os._exit(1)
    assert os.read(read, 1) == b"x"
    with pytest.raises(UsageError, match=rf"E207 .*process {child}"), only_writer(tmp_path, ""):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with only_writer(tmp_path, ""):
        assert (tmp_path / "lock.pid").read_text() == str(os.getpid())
    assert not (tmp_path / "lock.pid").exists()


def test_processes_that_train_together_share_the_lock_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in program.RANKS:
        monkeypatch.delenv(name, raising=False)
    assert program.leads()
    for name in program.RANKS:
        monkeypatch.setenv(name, "1")
        assert not program.leads()
        monkeypatch.setenv(name, "0")
    assert program.leads()


def test_the_best_weights_alone_are_not_overwritten_either(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=1")
    for path in checkpointing.checkpoints(tmp_path):
        path.unlink()
    (tmp_path / "weights.safetensors").rename(tmp_path / "best.safetensors")
    with pytest.raises(UsageError, match=r"E204 .*best\.safetensors without a checkpoint"):
        run(tmp_path, "resume=auto")


def test_a_damaged_newest_checkpoint_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, "trainer.max_steps=2", "trainer.checkpoint_steps=1")
    newest = checkpointing.checkpoints(tmp_path)[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    metrics = run(tmp_path, "trainer.max_steps=2", "resume=auto")
    assert metrics["pairs_of_run"] == metrics["pairs_seen"] / 2
    assert f"{newest} is damaged: going on from the one before it" in caplog.text
    caplog.clear()
    run(tmp_path, "trainer.max_steps=3", "resume=auto")
    assert "is damaged" not in caplog.text


@pytest.mark.parametrize("taken", ["logs", "tensorboard"])
def test_a_file_in_the_place_of_a_folder_of_logs_is_told(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(StorageError, match=f"E401 .*{taken}: cannot make the folder"):
        run(tmp_path)
    assert (tmp_path / taken).read_text() == "mine"


@pytest.mark.parametrize("resume", ["auto", ""])
def test_weights_that_no_checkpoint_goes_with_are_not_overwritten(
    tmp_path: Path, resume: str
) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"of 50,000 steps")
    with pytest.raises(UsageError, match=r"E204 .*weights\.safetensors without a checkpoint"):
        run(tmp_path, f"resume={resume}")
    (tmp_path / "step_00050000-0123456789abcdef.ckpt").write_bytes(b"cut")
    kind, told = (StorageError, r"E402 .*none of its 1") if resume else (UsageError, "E204 .*holds")
    with pytest.raises(kind, match=told):
        run(tmp_path, f"resume={resume}")
    assert weights.read_bytes() == b"of 50,000 steps"


FOREIGN: dict[str, Any] = {
    "a list": [1, 2],
    "weights alone": {"conv.weight": torch.ones(3)},
    "of another Lightning module": {"state_dict": {}, "global_step": 3, "callbacks": {}},
}


@pytest.mark.parametrize("state", FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match=r"E502 .*foreign\.ckpt: is no checkpoint of") as told:
        checkpointing.start_from(tmp_path / "run", str(tmp_path / "foreign.ckpt"))
    assert told.value.exit_code == 5


@pytest.mark.parametrize(
    "part", [None, [], {}, {"config": {}}, {"config": {"model": {}}, "guard": {}, "pairs_seen": 3}]
)
def test_a_checkpoint_whose_own_part_is_broken_is_refused(tmp_path: Path, part: Any) -> None:
    values = compose("train", words(tmp_path))
    values.pop("data")
    module = MatcherModule(config_from_dict(RunConfig, values), 2)
    with pytest.raises(CheckpointError, match=r"E502 resume: is no checkpoint of train\.py"):
        module.on_load_checkpoint({"matcher": part})


@pytest.mark.parametrize("word", ["seed", "trainer.threads", "data.workers"])
def test_numbers_beyond_any_use_are_one_line(
    tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(words(tmp_path, f"{word}=1{'0' * 30}")) == 2
    error = capsys.readouterr().err
    assert f"E201 {word}" in error
    assert error.count("\n") == 1


def test_a_finished_run_that_is_resumed_has_seen_no_pair(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=2")
    again = run(tmp_path, "trainer.max_steps=2", "resume=auto")
    assert (again["pairs_of_run"], again["pairs_seen"], again["steps"]) == (0, 4, 2)


def test_epochs_are_counted_in_pairs_whatever_the_batch(tmp_path: Path) -> None:
    for epochs, batch in ((1, 1), (2, 4)):
        words_of_run = words(tmp_path, f"trainer.max_epochs={epochs}", "resume=auto")
        data = PlaneData(batch_size=batch, pairs=8)
        metrics = program.train(compose("train", words_of_run), data)
        assert metrics["pairs_seen"] == 8 * epochs
    assert metrics["steps"] == 8 + 2


def test_a_line_of_the_log_holds_values_of_its_step_alone(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=3", "trainer.log_every=2")
    _, second, third = (tmp_path / "run.log").read_text().splitlines()
    assert second.startswith("step 2 pairs 4 loss ")
    assert "loss" not in third


def test_a_run_logs_lines_and_ends_with_losses_pairs_and_paths(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=2")
    metrics = run(tmp_path, "trainer.max_steps=5", "resume=auto", "trainer.log_every=2")
    log = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split()[:2] for line in log if line.startswith("step")] == [
        ["step", str(step)] for step in (1, 2, 4, 5)
    ]
    assert "from step 2 on" in log[3]
    lines = program.closing_lines(tmp_path, metrics)
    assert "pairs                6 in this run, 10 in all, 5 steps" in lines
    assert any(line.startswith("train/loss") for line in lines)
    named = {line[:20].strip(): line[21:] for line in lines}
    assert named["weights"] == str(tmp_path / "weights.safetensors")
    assert Path(named["checkpoint"]).name.startswith("step_00000005-")
    assert named["log"] == str(tmp_path / "run.log")
