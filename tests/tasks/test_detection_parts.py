"""The parts of a detector against written-out loops and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from matcher.tasks.detection.anchors import all_anchors, level_anchors
from matcher.tasks.detection.boxes import box_iou, clip, decode, encode, nms
from matcher.tasks.detection.config import STRIDES
from matcher.tasks.detection.decoding import find_boxes
from matcher.tasks.detection.labels import COCO_LABELS, COCO_NUMBERS, category_numbers
from matcher.tasks.detection.losses import assign, detection_loss, focal_loss
from matcher.tasks.detection.model import RetinaOutput
from matcher.tasks.detection.preprocess import fitted_size, to_batch
from matcher.tasks.detection.structures import DetectionBatch


def random_boxes(count: int, seed: int = 0, side: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * side * 0.6
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=generator) * side * 0.4], 1)


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_the_anchors_of_a_cell_are_those_worked_out_by_hand() -> None:
    anchors = level_anchors((2, 3), 8, 4.0)
    assert anchors.shape == (2 * 3 * 9, 4)
    first = anchors[(1 * 3 + 2) * 9 :].tolist()
    # Row 1, column 2 of cells of 8 pixels: the center is (16, 8).
    for number, (ratio, scale) in enumerate(
        (ratio, scale) for ratio in (0.5, 1, 2) for scale in (1, 2 ** (1 / 3), 2 ** (2 / 3))
    ):
        width, height = 32 * scale / math.sqrt(ratio), 32 * scale * math.sqrt(ratio)
        expected = [16 - width / 2, 8 - height / 2, 16 + width / 2, 8 + height / 2]
        assert first[number] == pytest.approx(expected, abs=1e-4)
    assert first[0] == pytest.approx([16 - 22.627417, 8 - 11.313708, 38.627417, 19.313708])


def test_levels_have_anchors_from_32_to_813_pixels() -> None:
    levels = all_anchors([(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)], STRIDES, 4.0)
    sides = [math.sqrt(float((a[:, 2:] - a[:, :2]).prod(dim=1).min())) for a in levels]
    assert sides == pytest.approx([32, 64, 128, 256, 512], rel=1e-5)
    largest = (levels[-1][:, 2:] - levels[-1][:, :2]).prod(dim=1).max().sqrt()
    assert float(largest) == pytest.approx(512 * 2 ** (2 / 3), rel=1e-5)


def test_overlaps_are_those_of_a_loop() -> None:
    boxes0, boxes1 = random_boxes(20, 1), random_boxes(30, 2)
    expected = [[iou(a, b) for b in boxes1.tolist()] for a in boxes0.tolist()]
    torch.testing.assert_close(box_iou(boxes0, boxes1), torch.tensor(expected))


def test_a_box_comes_back_from_its_code() -> None:
    boxes, anchors = random_boxes(500, 3), random_boxes(500, 4)
    back = decode(encode(boxes, anchors), anchors)
    assert float((back - boxes).abs().max() / 100) < 1e-5
    code = encode(torch.tensor([[10.0, 20, 30, 60]]), torch.tensor([[0.0, 0, 10, 20]]))
    assert code[0].tolist() == pytest.approx([1.5, 1.5, math.log(2), math.log(2)])


def test_sizes_change_by_1000_over_16_at_most() -> None:
    anchor = torch.tensor([[0.0, 0, 16, 16]])
    box = decode(torch.tensor([[0.0, 0, 50, -50]]), anchor)[0]
    assert float(box[2] - box[0]) == pytest.approx(1000, rel=1e-5)
    assert float(box[3] - box[1]) == pytest.approx(16 * 16 / 1000, rel=1e-3)


def test_boxes_are_cut_at_the_image() -> None:
    boxes = clip(torch.tensor([[-5.0, 3, 50, 99], [60, 60, 70, 70]]), (40, 30))
    assert boxes.tolist() == [[0, 3, 30, 40], [30, 40, 30, 40]]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_keeps_what_a_quadratic_loop_keeps(threshold: float) -> None:
    boxes, scores = (
        random_boxes(200, 5),
        torch.rand(200, generator=torch.Generator().manual_seed(6)),
    )
    scores[50:60] = scores[40:50]
    order = sorted(range(200), key=lambda i: (-float(scores[i]), i))
    kept: list[int] = []
    for i in order:
        if all(iou(boxes[i].tolist(), boxes[j].tolist()) <= threshold for j in kept):
            kept.append(i)
    assert nms(boxes, scores, threshold).tolist() == kept
    assert nms(boxes, scores, threshold, most=7).tolist() == kept[:7]
    assert 10 < len(kept) < 200


def test_nms_of_nothing_is_nothing() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0)).shape == (0,)


def assigned_by_loops(anchors: Tensor, boxes: Tensor, valid: list[bool]) -> list[int]:
    table = [[iou(a, b) for b in boxes.tolist()] for a in anchors.tolist()]
    out = []
    for row, ok in zip(table, valid, strict=True):
        best = max(range(len(row)), key=lambda j: row[j])
        number = best if row[best] >= 0.5 else (-1 if row[best] < 0.4 else -2)
        out.append(number if ok else -2)
    for j in range(len(boxes)):
        best = max(row[j] for row, ok in zip(table, valid, strict=True) if ok)
        for i, row in enumerate(table):
            if valid[i] and best > 0 and row[j] > best - 1e-6:
                out[i] = j
    return out


def test_anchors_are_assigned_as_loops_do_it() -> None:
    anchors = torch.cat([random_boxes(300, 7), torch.tensor([[200.0, 200, 220, 220]])])
    boxes = torch.cat([random_boxes(12, 8), torch.tensor([[215.0, 215, 230, 230]])])
    valid = [i % 7 != 0 for i in range(len(anchors))]
    found = assign(anchors, boxes, torch.tensor(valid)).tolist()
    assert found == assigned_by_loops(anchors, boxes, valid)
    # A box that no anchor overlaps by much has one all the same.
    assert found[-1] == 12
    assert {-2, -1} < set(found)


def test_without_boxes_every_anchor_is_background() -> None:
    valid = torch.tensor([True, False, True])
    assert assign(random_boxes(3), torch.zeros(0, 4), valid).tolist() == [-1, -2, -1]


def test_a_box_outside_of_all_anchors_is_nobodys() -> None:
    assert assign(random_boxes(3), torch.tensor([[900.0, 900, 910, 910]])).tolist() == [-1] * 3


def test_the_focal_loss_is_that_of_its_formula() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.3, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = 0.0
    for x, y in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        of_truth, alpha = (p, 0.25) if y else (1 - p, 0.75)
        expected -= alpha * (1 - of_truth) ** 2 * math.log(of_truth)
    assert float(focal_loss(logits, targets)) == pytest.approx(expected, rel=1e-5)
    assert torch.isfinite(focal_loss(torch.tensor([[300.0, -300.0]]), targets[:1] * 0))


def made_output(batch: int) -> RetinaOutput:
    anchors = level_anchors((4, 4), 8, 4.0)
    generator = torch.Generator().manual_seed(9)
    shape = (batch, len(anchors))
    logits, deltas = (
        torch.randn(*shape, 3, generator=generator),
        torch.randn(*shape, 4, generator=generator),
    )
    return RetinaOutput([logits], [deltas * 0.2], [anchors], [None])


def test_the_loss_is_over_the_positive_anchors_of_the_batch() -> None:
    output = made_output(2)
    pixels = np.zeros((32, 32, 3), np.uint8)
    two = [
        to_batch(pixels, np.array([[2.1, 3.4, 30.3, 30.9]]), np.array([2])),
        to_batch(
            pixels, np.array([[0.3, 1.1, 17.2, 31.7], [9.4, 8.8, 20.1, 29.3]]), np.array([0, 1])
        ),
    ]
    batch = DetectionBatch.collate(two)
    assert batch.index.tolist() == [0, 1, 1]
    logits, deltas, anchors = output.logits[0], output.deltas[0], output.anchors[0]
    focal = distance = count = 0.0
    for b, item in enumerate(two):
        numbers = assigned_by_loops(anchors, item.boxes, [True] * len(anchors))
        for i, number in enumerate(numbers):
            if number == -2:
                continue
            targets = torch.zeros(3)
            if number >= 0:
                targets[item.classes[number]] = 1
                wanted = encode(item.boxes[number], anchors[i])
                distance += float((deltas[b, i] - wanted).abs().sum())
                count += 1
            focal += float(focal_loss(logits[b, i][None], targets[None]))
    found = detection_loss(output, batch)
    assert float(found["classes"]) == pytest.approx(focal / count, rel=1e-4)
    assert float(found["boxes"]) == pytest.approx(distance / count, rel=1e-4)


def test_a_batch_without_a_box_has_a_loss_with_gradients() -> None:
    output = made_output(1)
    leaves = [output.logits[0].requires_grad_(), output.deltas[0].requires_grad_()]
    terms = detection_loss(output, to_batch(np.zeros((32, 32, 3), np.uint8)))
    torch.stack(list(terms.values())).sum().backward()
    assert float(terms["boxes"].detach()) == 0
    assert float(terms["classes"].detach()) > 0
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_boxes_are_found_as_loops_find_them() -> None:
    output = made_output(1)
    (found,) = find_boxes(output, [(32, 30)], 0.6)
    scores = output.logits[0][0].sigmoid()
    boxes = clip(decode(output.deltas[0][0], output.anchors[0]), (32, 30))
    expected = []
    for number in range(3):
        order = sorted(
            (i for i in range(len(boxes)) if scores[i, number] > 0.6),
            key=lambda i: -float(scores[i, number]),
        )
        kept: list[int] = []
        for i in order:
            if all(iou(boxes[i].tolist(), boxes[j].tolist()) <= 0.5 for j in kept):
                kept.append(i)
        expected += [(float(scores[i, number]), number, i) for i in kept]
    expected.sort(key=lambda entry: -entry[0])
    assert found.scores.tolist() == pytest.approx([score for score, _, _ in expected])
    assert found.classes.tolist() == [number for _, number, _ in expected]
    torch.testing.assert_close(found.boxes, boxes[[i for _, _, i in expected]])


def test_masked_anchors_are_never_found() -> None:
    output = made_output(1)
    nothing = output._replace(valid=[torch.zeros(1, len(output.anchors[0])).bool()])
    assert len(find_boxes(nothing, [(32, 32)], 0.0)[0].boxes) == 0


def test_the_80_classes_of_coco_have_their_numbers_to_90() -> None:
    assert (len(COCO_LABELS), len(set(COCO_LABELS)), len(COCO_NUMBERS)) == (80, 80, 80)
    known = dict(zip(COCO_LABELS, COCO_NUMBERS, strict=True))
    some = {"person": 1, "stop sign": 13, "bench": 15, "backpack": 27, "bottle": 44}
    some |= {"banana": 52, "dining table": 67, "toilet": 70, "tv": 72, "toothbrush": 90}
    assert {name: known[name] for name in some} == some
    assert category_numbers(("a", "b")) == (1, 2)


def test_sides_are_fitted_as_published() -> None:
    assert fitted_size((480, 640), 800, 1333) == (800, 1067)
    assert fitted_size((400, 1000), 800, 1333) == (533, 1333)
    assert fitted_size((1, 5000), 800, 1333) == (1, 1333)
