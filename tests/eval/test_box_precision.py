"""Average precision at the validations of a detector's training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from eval import box_precision
from eval.box_precision import BoxPrecision
from matcher.tasks.detection.decoding import FoundBoxes
from matcher.tasks.detection.model import RetinaNet
from matcher.tasks.detection.preprocess import to_batch
from matcher.tasks.detection.structures import DetectionBatch
from tests.helpers.annotated import LABELS, SMALL, shapes


def batch() -> DetectionBatch:
    """Two pictures of different sizes and their boxes."""
    items = []
    for (pixels, boxes), width in zip(shapes(2), (128, 96), strict=True):
        truth = np.array([box[:4] for box in boxes if box[2] <= width], np.float32)
        classes = np.array([box[4] for box in boxes if box[2] <= width])
        items.append(to_batch(pixels[:, :width], truth, classes))
    return DetectionBatch.collate(items)


def told(monkeypatch: pytest.MonkeyPatch, shift: float) -> dict[str, float]:
    """What a validation logs where boxes are found so many pixels beside the true ones."""
    seen, sizes_told = batch(), []

    def found(_: object, sizes: list[tuple[int, int]]) -> list[FoundBoxes]:
        sizes_told.extend(sizes)
        owned = [seen.index == b for b in range(len(sizes))]
        return [
            FoundBoxes(seen.boxes[own] + shift, torch.ones(int(own.sum())), seen.classes[own])
            for own in owned
        ]

    monkeypatch.setattr(box_precision, "find_boxes", found)
    logged: dict[str, float] = {}
    module: Any = SimpleNamespace(average=RetinaNet(SMALL).eval(), log_dict=logged.update)
    callback = BoxPrecision(LABELS)
    trainer: Any = None
    callback.on_validation_epoch_start(trainer, module)
    callback.on_validation_batch_end(trainer, module, None, seen, 0)
    callback.on_validation_epoch_end(trainer, module)
    assert sizes_told == [(96, 128), (96, 96)]
    return logged


def test_boxes_that_are_found_exactly_have_a_precision_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told(monkeypatch, 0.0) == pytest.approx({"val/ap": 1.0, "val/ap50": 1.0})


def test_boxes_beside_the_true_ones_count_at_small_overlaps_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = told(monkeypatch, 3.0)
    assert figures["val/ap50"] == pytest.approx(1.0)
    assert 0.1 < figures["val/ap"] < 0.9


def test_boxes_elsewhere_are_worth_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, 500.0) == {"val/ap": 0.0, "val/ap50": 0.0}
