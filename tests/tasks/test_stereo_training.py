"""`python train.py task=stereo`: as a plain loop trains, resumable, and in one line where not."""

from __future__ import annotations

import os
import signal
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

import train as program
from conf import compose_run
from data.order import PairStream
from data.stereo import StereoData, StereoDataConfig
from data.synthetic.stereo import StereoSceneConfig, StereoScenes
from matcher.errors import CheckpointError, UsageError
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.structures import StereoPair
from matcher.tasks.stereo.training import StereoOptimConfig
from matcher.tasks.stereo.weights import load_stereo, save_stereo
from matcher.training import checkpointing
from matcher.weights.checkpoint import read_weights
from tests.helpers.forks import finish, fork
from tests.helpers.stereo import TINY, plain_training, write_frames

SCENES = StereoSceneConfig(
    sizes=((32, 64), (48, 64)), shares=(0.5, 0.5), texture_side=64, procedural=9, pairs=8
)
WORDS = (
    "task=stereo", "model.channels=16", "model.fine_channels=8", "model.deep_channels=16",
    "model.layers=1", "model.heads=2", "model.refine_channels=8", "optim.warmup_pairs=8",
    "data.stereo.sizes=[[32,64],[48,64]]", "data.stereo.shares=[0.5,0.5]",
    "data.stereo.texture_side=64", "data.stereo.procedural=9", "data.stereo.pairs=8",
    "data.val_pairs=2", "trainer.accelerator=cpu", "trainer.progress=false", "trainer.threads=1",
    "trainer.log_every=1", "trainer.validate_steps=0",
)  # fmt: skip
COOLING = ("optim.warmup_pairs=1", "optim.total_pairs=40", "optim.cooldown_pairs=8")
COOLED = StereoOptimConfig(warmup_pairs=1, total_pairs=40, cooldown_pairs=8)


def words(folder: Path, *more: str) -> list[str]:
    return [*WORDS, f"folder={folder}", *more]


def run(folder: Path, *more: str) -> dict[str, float]:
    return program.train(compose_run(words(folder, *more)))


def newest(folder: Path) -> dict[str, torch.Tensor]:
    path = checkpointing.newest_intact(folder)
    assert path is not None
    return checkpointing.load_checkpoint(path)["state_dict"]


def test_a_run_learns_what_a_plain_loop_learns(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=3", "optim.cooldown_pairs=0")
    scenes = StereoScenes(SCENES)
    stream = PairStream(lambda _: range(SCENES.pairs), 4)
    batches = [StereoPair.collate([scenes[key] for key in keys]) for keys in islice(stream, 3)]
    module, _ = plain_training(TINY, StereoOptimConfig(warmup_pairs=8), batches)
    trained = load_stereo(tmp_path / "weights.safetensors").state_dict()
    for name, value in module.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(trained[name], value, atol=1e-6, rtol=1e-5)


def test_an_interrupted_run_ends_as_one_in_a_piece(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, "trainer.max_steps=4", "optim.cooldown_pairs=0")
    run(parts, "trainer.max_steps=2", "optim.cooldown_pairs=0")
    metrics = run(parts, "trainer.max_steps=4", "optim.cooldown_pairs=0", "resume=auto")
    assert (metrics["steps"], metrics["pairs_seen"]) == (4, 16)
    first, second = newest(whole), newest(parts)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_say_what_trained_them_and_start_another_run(tmp_path: Path) -> None:
    run(tmp_path / "a", "trainer.max_steps=2")
    weights = tmp_path / "a" / "weights.safetensors"
    assert read_weights(weights).metadata["training_pairs"] == "8"
    assert load_stereo(weights).config == TINY
    metrics = run(tmp_path / "b", "trainer.max_steps=1", f"init_weights={weights}")
    assert metrics["pairs_seen"] == 12


def test_the_rate_of_a_run_counts_from_the_weights_it_started_with(tmp_path: Path) -> None:
    weights, anew = tmp_path / "seen.safetensors", tmp_path / "new.safetensors"
    save_stereo(weights, Stereo(TINY), training_pairs="100000")
    save_stereo(anew, Stereo(TINY))
    rates = []
    for start in (weights, anew):
        folder = tmp_path / start.stem
        run(folder, "trainer.max_steps=2", f"init_weights={start}", "trainer.log_every=1")
        metrics = run(folder, "trainer.max_steps=3", "resume=auto", "trainer.log_every=1")
        rates.append(metrics["train/rate"])
    assert rates[0] == rates[1]


@pytest.mark.parametrize("given", ["--task=stereo", "--task stereo"])
def test_a_task_may_be_given_as_other_options_are(given: str) -> None:
    assert compose_run(given.split())["model"]["channels"] == 48


def test_weights_may_have_seen_any_number_of_pairs(tmp_path: Path) -> None:
    """Not a multiple of the pairs a step: the first batch is still one of a group."""
    weights = tmp_path / "a.safetensors"
    save_stereo(weights, Stereo(TINY), training_pairs="26")
    run(tmp_path / "run", "trainer.max_steps=1", f"init_weights={weights}")
    metrics = run(tmp_path / "run", "trainer.max_steps=2", "resume=auto")
    assert metrics["pairs_seen"] == 34


def test_a_number_of_pairs_beyond_counting_is_none(tmp_path: Path) -> None:
    save_stereo(tmp_path / "a.safetensors", Stereo(TINY), training_pairs="9" * 30)
    metrics = run(
        tmp_path / "run", "trainer.max_steps=1", f"init_weights={tmp_path / 'a.safetensors'}"
    )
    assert metrics["pairs_seen"] == 4


def test_a_validation_logs_and_shows_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("trainer.max_steps=1", "trainer.validate_steps=1", "trainer.progress=true")
    metrics = run(tmp_path, *more)
    assert "step 1 validation loss" in capsys.readouterr().out
    assert 0 <= metrics["val/bad3"] <= 1
    assert metrics["val/end_point"] > 0
    assert metrics["train/rate"] == pytest.approx(1e-3 / 8)


def test_frames_of_a_room_train_too(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    folder = write_frames(tmp_path / "room")
    more = ("trainer.max_steps=1", f"data.frames={folder}", "data.frame_share=1.0")
    metrics = run(tmp_path / "run", *more)
    assert metrics["pairs_seen"] == 4
    assert metrics["train/match"] > 0


def test_the_rate_rises_then_falls_to_its_last_value() -> None:
    optim = StereoOptimConfig(rate=1e-3, last_rate=1e-5, warmup_pairs=100, total_pairs=1000)
    rates = [optim.rate_at(n) for n in (0, 99, 500, 1000, 5000)]
    assert rates[0] == pytest.approx(1e-5, rel=0.01)
    assert rates[1] == pytest.approx(1e-3, rel=0.05)
    assert rates[2] == pytest.approx(5.05e-4, rel=0.01)
    assert rates[3] == rates[4] == pytest.approx(1e-5)


def test_an_early_end_takes_the_rate_down_from_where_it_is() -> None:
    optim = StereoOptimConfig(
        rate=1e-3, last_rate=1e-5, warmup_pairs=10, total_pairs=1000, cooldown_pairs=200
    )
    full = [optim.rate_at(n) for n in range(1001)]
    early = [optim.rate_at(n, end=600) for n in range(601)]
    assert early[:401] == full[:401]
    assert early[500] == pytest.approx((full[500] + 1e-5) / 2)
    assert early[600] == pytest.approx(1e-5)
    assert [optim.rate_at(n, end=1000) for n in (500, 900)] == [full[500], full[900]]
    assert max(optim.rate_at(n, end=60) for n in range(60)) > 0.8e-3
    none = StereoOptimConfig(total_pairs=1000, cooldown_pairs=0)
    assert none.rate_at(599, end=600) == none.rate_at(599)


def test_the_end_of_a_run_is_what_the_rate_falls_to(tmp_path: Path) -> None:
    """Resumed with fewer steps than planned, a run cools down at once."""
    run(tmp_path, "trainer.max_steps=10", "trainer.max_minutes=0.0001", *COOLING)
    metrics = run(tmp_path, "trainer.max_steps=4", "resume=auto", *COOLING)
    assert metrics["steps"] == 4
    assert metrics["train/rate"] == pytest.approx(COOLED.rate_at(12, end=16))
    assert COOLED.rate_at(12, end=16) < 0.6 * COOLED.rate_at(12)


def test_the_end_of_a_run_is_told_by_the_batches_it_still_takes(tmp_path: Path) -> None:
    """Four pairs by twos, then three batches of four."""
    run(tmp_path, "trainer.max_steps=2", "data.batch_size=2", *COOLING)
    metrics = run(tmp_path, "trainer.max_steps=5", "resume=auto", *COOLING)
    assert metrics["pairs_seen"] == 16
    assert metrics["train/rate"] == pytest.approx(COOLED.rate_at(12, end=16))


def test_a_batch_that_would_mix_sizes_is_refused() -> None:
    data = StereoData(StereoDataConfig(batch_size=3, stereo=SCENES), 0)
    with pytest.raises(UsageError, match=r"data\.stereo\.group.*multiple of the 3 pairs"):
        data.train_dataloader()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "trainer.max_steps=1")
    with pytest.raises(CheckpointError, match="another model"):
        run(tmp_path, "trainer.max_steps=2", "resume=auto", "model.cross=full")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["task=flow"], "expected one of matcher, stereo"),
        (["task=stereo", "optim.rate=2.0"], "optim.rate"),
        (["task=stereo", "optim.lr=1e-3"], "optim.lr"),
        (["task=stereo", "data.stereo.pears=8"], "data.stereo.pears"),
        (["task=stereo", "model.cross=half"], "cross"),
        (["task=stereo", "trainer.max_steps=0", "trainer.pose_pairs=x"], "E201 trainer.pose_pairs"),
        (["task=stereo", "experiment=compact"], "experiment"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert program.main([*given, f"folder={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_sigterm_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    more = words(tmp_path, "trainer.max_steps=100000", "trainer.progress=true")
    read, write = os.pipe()

    def train() -> None:
        with os.fdopen(write, "w", buffering=1) as sys.stdout:
            with (tmp_path / "errors").open("w") as sys.stderr:
                os._exit(program.main(more))

    child = fork(train)
    os.close(write)
    with os.fdopen(read) as told:
        assert told.readline().startswith("step 1 pairs 4 loss ")
        os.kill(child, signal.SIGTERM)
        assert finish(child) == 143
    assert "resume=auto goes on" in (tmp_path / "errors").read_text()
    assert checkpointing.newest_intact(tmp_path) is not None
    assert load_stereo(tmp_path / "weights.safetensors").config == TINY
