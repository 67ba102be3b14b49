"""`python train.py task=classification`: a folder a class, resumable, in one line where not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import train as program
from data.classification import ClassificationData, ClassificationDataConfig
from data.detection import flipped
from data.order import PairStream
from data.real.boxes import TrueBoxes
from data.real.image_folder import random_crop
from matcher.errors import CheckpointError, UsageError
from matcher.tasks.classification.module import ClassificationModule
from matcher.tasks.classification.structures import ImageBatch
from matcher.tasks.classification.training import ClassificationOptimConfig, ClassificationRunConfig
from matcher.training import checkpointing
from matcher.weights.checkpoint import read_weights
from matcher.weights.pyramid import load_pyramid
from tests.helpers.image_classes import COLORS, train_classifier, write_set
from tests.helpers.pyramids import SMALL


def newest(folder: Path) -> dict[str, torch.Tensor]:
    path = checkpointing.newest_intact(folder)
    assert path is not None
    return checkpointing.load_checkpoint(path)["state_dict"]


def test_mirrored_pictures_of_one_column_become_tensors() -> None:
    column = np.arange(30, dtype=np.uint8).reshape(10, 1, 3)
    crops = [random_crop(column, 1, np.random.default_rng(seed)) for seed in range(8)]
    assert all(torch.tensor(crop).shape == (1, 1, 3) for crop in crops)
    boxes = TrueBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    mirrored, _ = flipped(column, boxes, 1)
    assert np.array_equal(torch.tensor(mirrored).numpy(), column)


def test_folders_become_the_classes_of_the_weights(tmp_path: Path) -> None:
    metrics = train_classifier(tmp_path, "trainer.max_steps=1")
    assert metrics["pairs_seen"] == 6
    path = tmp_path / "run" / "weights.safetensors"
    assert read_weights(path).metadata["training_pairs"] == "6"
    loaded = load_pyramid(path)
    assert (loaded.labels, loaded.side) == (tuple(COLORS), 32)
    assert loaded.model.config.classes == 3


def test_an_interrupted_run_ends_as_one_in_a_piece(tmp_path: Path) -> None:
    train_classifier(tmp_path, "trainer.max_steps=3", run="whole")
    train_classifier(tmp_path, "trainer.max_steps=1", run="parts")
    train_classifier(tmp_path, "trainer.max_steps=3", "resume=auto", run="parts")
    first, second = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_validation_tells_the_share_that_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("trainer.max_steps=40", "trainer.validate_steps=40", "trainer.progress=true")
    metrics = train_classifier(tmp_path, *more)
    assert "step 40 validation loss" in capsys.readouterr().out
    assert metrics["val/top1"] >= 0.9
    assert metrics["val/top5"] == 1.0


def test_the_rate_rises_and_falls_with_the_images() -> None:
    optim = ClassificationOptimConfig(total_images=1000, rate=1e-2, last_rate=1e-4)
    assert optim.rate_at(0) < 1e-3
    assert optim.rate_at(50) == pytest.approx(1e-2, rel=0.02)
    assert optim.rate_at(1000) == pytest.approx(1e-4)
    with pytest.raises(UsageError, match=r"E201 optim.last_rate"):
        ClassificationOptimConfig(rate=1e-3, last_rate=1e-2)


def test_batches_are_the_same_from_wherever_one_starts(tmp_path: Path) -> None:
    config = ClassificationDataConfig(folder=str(write_set(tmp_path)), side=16, batch_size=2)
    images, order = ClassificationData(config, seed=3)._training()
    one, later = (iter(PairStream(order, 2, start=start)) for start in (0, 10))
    for _ in range(5):
        next(one)
    for _ in range(4):  # over the end of an epoch of 13
        a, b = ([images[key] for key in next(stream)] for stream in (one, later))
        assert torch.equal(*(ImageBatch.collate(batch).images for batch in (a, b)))


def test_a_network_that_says_nothing_loses_the_logarithm_of_the_classes() -> None:
    run = ClassificationRunConfig(model=SMALL)
    module = ClassificationModule(run, tuple(COLORS), 32, 2)
    head = module.model.head
    assert head is not None
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    batch = ImageBatch(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]))
    loss = module.terms(module.model, batch)["cross_entropy"]
    assert float(loss.detach()) == pytest.approx(math.log(head.out_features), abs=1e-5)


def test_weights_of_other_classes_start_no_run(tmp_path: Path) -> None:
    train_classifier(tmp_path, "trainer.max_steps=1")
    weights = tmp_path / "run" / "weights.safetensors"
    metrics = train_classifier(
        tmp_path, "trainer.max_steps=1", f"init_weights={weights}", run="again"
    )
    assert metrics["pairs_seen"] == 12
    with pytest.raises(CheckpointError, match="another architecture"):
        train_classifier(
            tmp_path, "trainer.max_steps=1", f"init_weights={weights}", "model.topk=5", run="other"
        )


def test_classes_of_other_names_are_others_as_many_as_they_may_be(tmp_path: Path) -> None:
    train_classifier(tmp_path, "trainer.max_steps=1")
    for part in ("train", "val"):
        (tmp_path / "set" / part / "red").rename(tmp_path / "set" / part / "amber")
    told = r"E502 .*classes blue, green, red, .*data\.folder amber, blue, green"
    with pytest.raises(CheckpointError, match=told):
        train_classifier(tmp_path, "trainer.max_steps=2", "resume=auto")
    weights = tmp_path / "run" / "weights.safetensors"
    with pytest.raises(CheckpointError, match=told):
        train_classifier(tmp_path, f"init_weights={weights}", run="other")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "E201 data.folder: there are no images; give data.folder=FOLDER with train/CLASS"),
        (["data.folder=nowhere"], "E111 nowhere/train: no such folder"),
        (["data.folder=x", "optim.rate=2.0"], "optim.rate"),
        (["data.folder=x", "data.split=train"], "data.split"),
        (
            ["data.folder=x", "trainer.max_steps=0", "trainer.figures=2"],
            "E201 trainer.figures: got 2; expected none: ",
        ),
        (["data.folder=x", "model.heads=[3,2,4,5]"], "heads"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert program.main(["task=classification", *given, f"folder={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_other_classes_to_validate_on_are_refused(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set")
    (data / "val" / "red").rename(data / "val" / "pink")
    with pytest.raises(UsageError, match=r"E201 data.folder.*the same classes in train and val"):
        train_classifier(tmp_path, "trainer.max_steps=1", "trainer.validate_steps=1")
