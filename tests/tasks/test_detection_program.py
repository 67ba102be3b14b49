"""`python -m matcher.tasks.detection`, training and evaluation of a detector."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train as program
from conf import compose_run
from data.real.boxes import TrueBoxes
from eval.average_precision import average_precision, image_hits, match
from eval.detection import DetectionEvalOptions, coco_figures, evaluate, score
from eval.detection import main as eval_main
from matcher.errors import CheckpointError, UsageError
from matcher.tasks.detection.__main__ import main
from matcher.tasks.detection.files import coco_results
from matcher.tasks.detection.labels import COCO_LABELS
from matcher.tasks.detection.model import RetinaNet
from matcher.tasks.detection.picture import draw_detections
from matcher.tasks.detection.predictor import Detector
from matcher.tasks.detection.structures import Detections
from matcher.tasks.detection.training import DetectionOptimConfig
from matcher.tasks.detection.weights import load_detector, save_detector
from matcher.training import checkpointing
from matcher.weights.checkpoint import read_weights
from matcher.weights.pyramid import save_pyramid
from tests.helpers.annotated import LABELS, SMALL, shapes, write_coco, write_voc

WORDS = (
    "task=detection", "data.batch_size=4", "data.flip=none", "data.scales=[1.0,1.0]",
    "model.backbone.dims=[8,16,24,32]", "model.backbone.depths=[1,1,1,1]",
    "model.backbone.heads=[1,2,3,4]", "model.backbone.mlp_ratios=[2,2,2,2]",
    "model.backbone.topk=4", "model.backbone.drop_path=0.0", "model.channels=24", "model.layers=1",
    "model.labels=[red,blue]", "model.shorter=96", "model.longer=128", "optim.rate=5e-3",
    "optim.warmup_images=80", "optim.total_images=960", "trainer.accelerator=cpu",
    "trainer.progress=false", "trainer.threads=1", "trainer.log_every=1",
    "trainer.validate_steps=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc") / "shapes")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that finds something everywhere."""
    torch.manual_seed(0)
    model = RetinaNet(SMALL)
    torch.nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.5)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_detector(path, model)
    return path


def run(folder: Path, voc: Path, *more: str) -> dict[str, float]:
    return program.train(compose_run([*WORDS, f"data.folder={voc}", f"folder={folder}", *more]))


def test_the_program_draws_and_writes(
    tmp_path: Path, voc: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = voc / "JPEGImages" / "shape_1.png"
    files = {name: tmp_path / f"found.{name}" for name in ("png", "json", "csv")}
    words = [str(image), f"weights={weights}", "threshold=0.02", f"picture={files['png']}"]
    words += [f"json={files['json']}", f"csv={files['csv']}", "image_id=7"]
    assert main(words) == 0
    assert "red" in capsys.readouterr().out
    found = Detector(weights).detect(image, 0.02)
    assert 0 < len(found) <= 100
    entries = json.loads(files["json"].read_text())
    rows = list(csv.DictReader(files["csv"].open()))
    assert len(entries) == len(rows) == len(found)
    x0, y0, x1, y1 = (found.boxes[0] + 0.5).tolist()
    assert entries[0]["image_id"] == 7
    assert entries[0]["category_id"] == int(found.indices[0]) + 1
    assert entries[0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.02)
    assert rows[0]["label"] == found.labels[0]
    assert float(rows[0]["width"]) == pytest.approx(x1 - x0, abs=0.02)
    with Image.open(files["png"]) as picture:
        assert min(picture.size) >= 700


def test_boxes_are_told_in_pixels_of_the_image(weights: Path) -> None:
    """The same picture at twice the size has the same boxes, at twice the distance."""
    pixels = shapes(1)[0][0]
    big = np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1)
    detector = Detector(weights)
    first, second = detector.detect(pixels, 0.0), detector.detect(big, 0.0)
    assert (first.size, second.size) == ((128, 96), (256, 192))
    inside = first.corner_boxes
    assert inside.min() >= 0
    assert (inside[:, 2] <= 128).all()
    assert (inside[:, 3] <= 96).all()
    # Bilinear halving of doubled pixels is the first picture again.
    np.testing.assert_allclose(second.corner_boxes, 2 * inside, atol=1e-2)
    assert (np.diff(first.scores) <= 0).all()


def test_a_result_cannot_be_changed_and_is_cut_by_score() -> None:
    found = Detections(
        np.zeros((3, 4), np.float32), ("a", "b", "a"), np.array([0.9, 0.5, 0.1], np.float32),
        np.array([0, 1, 0]), (10, 10),
    )  # fmt: skip
    with pytest.raises(AttributeError):
        found.size = (1, 1)  # pyright: ignore[reportAttributeAccessIssue]
    assert found.above(0.3).labels == ("a", "b")


def test_a_picture_is_turned_upright(tmp_path: Path, weights: Path) -> None:
    pixels = shapes(1)[0][0]
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(pixels)))
    turned.save(tmp_path / "a.png", exif=exif)
    found = Detector(weights).detect(tmp_path / "a.png", 0.0)
    assert found.size == (128, 96)
    np.testing.assert_array_equal(found.boxes, Detector(weights).detect(pixels, 0.0).boxes)


@pytest.mark.parametrize(
    "kind",
    [
        np.zeros((40, 30), np.uint8),
        np.full((40, 30, 4), 128, np.uint8),
        np.arange(1200, dtype=np.uint16).reshape(40, 30) * 50,
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((2, 300, 3), np.uint8),
    ],
    ids=["gray", "alpha", "16 bits", "1 x 1", "300 x 2"],
)
def test_any_image_is_looked_at(tmp_path: Path, weights: Path, kind: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(kind).save(path)
    words = [str(path), f"weights={weights}", f"picture={tmp_path / 'b.png'}"]
    assert main(words) == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{image}"], 2, "E203 weights"),
        (["weights={weights}"], 2, "E200"),
        (["{image}", "{image}", "weights={weights}"], 2, "E200"),
        (["{image}", "weights={weights}", "treshold=0.1"], 2, "did you mean 'threshold'"),
        (["{image}", "weights={weights}", "threshold=2.0"], 2, "threshold"),
        (["{image}", "weights={weights}", "picture=a.gif"], 2, "picture"),
        (["{image}", "weights={weights}", "picture={image}"], 2, "E205"),
        (["{image}", "weights={weights}", "picture=a.png", "csv=a.png"], 2, "E201 csv"),
        (["a.json", "weights={weights}", "json=a.json"], 2, "E205"),
        (["{image}", "weights={weights}", "model=quadtree_b0_dense"], 2, "tells its own"),
        (["{image}", "weights=none.pth"], 2, "give model=quadtree_b0_dense"),
        (["{image}", "weights=none.safetensors"], 2, "E111"),
        (["none.png", "weights={weights}"], 2, "E111"),
        (["{text}", "weights={weights}"], 3, "E101"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    tmp_path: Path, voc: Path, weights: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], code: int, told: str,
) -> None:  # fmt: skip
    (tmp_path / "text.png").write_text("no picture")
    names = {"image": voc / "JPEGImages" / "shape_0.png", "weights": weights}
    names["text"] = tmp_path / "text.png"
    assert main([word.format(**names) for word in words]) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_cocos_classes_have_cocos_numbers_in_files() -> None:
    found = Detections(
        np.array([[-0.5, -0.5, 9.5, 19.5]], np.float32), ("toothbrush",),
        np.array([0.75], np.float32), np.array([79]), (30, 30),
    )  # fmt: skip
    entry = {"image_id": "a.jpg", "category_id": 90, "bbox": [0, 0, 10, 20], "score": 0.75}
    assert coco_results(found, "a.jpg", COCO_LABELS) == [entry]


def test_frames_are_drawn_where_boxes_are() -> None:
    image = np.full((800, 800, 3), 128, np.uint8)
    found = Detections(
        np.array([[199.5, 299.5, 599.5, 699.5]], np.float32), ("red",),
        np.array([0.5], np.float32), np.array([0]), (800, 800),
    )  # fmt: skip
    picture = draw_detections(image, found)
    changed = (picture != 128).any(axis=2)
    assert changed[310:690, 198:203].any(axis=1).all()
    assert not changed[320:680, 220:580].any()
    assert not changed[:, :190].any()


def test_training_writes_weights_that_find_with_its_labels(tmp_path: Path, voc: Path) -> None:
    metrics = run(tmp_path, voc, "trainer.max_steps=2", "trainer.validate_steps=1")
    assert metrics["pairs_seen"] == 8
    assert metrics["val/loss"] > 0
    assert 0 <= metrics["val/ap"] <= metrics["val/ap50"] <= 1
    path = tmp_path / "weights.safetensors"
    assert read_weights(path).metadata["training_pairs"] == "8"
    assert load_detector(path).config.names == LABELS


def test_an_interrupted_run_ends_as_one_in_a_piece(tmp_path: Path, voc: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, voc, "trainer.max_steps=3")
    run(parts, voc, "trainer.max_steps=1")
    run(parts, voc, "trainer.max_steps=3", "resume=auto")
    states = []
    for folder in (whole, parts):
        path = checkpointing.newest_intact(folder)
        assert path is not None
        states.append(checkpointing.load_checkpoint(path)["state_dict"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_on_cocos_json_starts_from_a_classifiers_backbone(tmp_path: Path, voc: Path) -> None:
    path = write_coco(tmp_path)
    words = (f"data.annotations={path}", f"data.folder={voc / 'JPEGImages'}")
    save_pyramid(tmp_path / "p.safetensors", RetinaNet(SMALL).backbone)
    metrics = run(
        tmp_path / "run", voc, *words, f"backbone_weights={tmp_path / 'p.safetensors'}",
        "trainer.max_steps=1",
    )  # fmt: skip
    assert metrics["steps"] == 1
    with pytest.raises(UsageError, match=r"E204 data\.val_annotations: is not set; give COCO's"):
        run(tmp_path / "judged", voc, *words, "trainer.validate_steps=1")
    with pytest.raises(CheckpointError, match="another pyramid"):
        run(
            tmp_path / "other", voc, f"backbone_weights={tmp_path / 'p.safetensors'}",
            "model.backbone.topk=5", "trainer.max_steps=1",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["data.folder="], "data.folder"),
        (["data.folder=none"], "E111"),
        (["model.labels=[red]"], "got 'blue'"),
        (["data.flip=left"], "data.flip"),
        (
            ["init_weights=a", "backbone_weights=b"],
            "E201 backbone_weights: got 'b'; expected empty",
        ),
        (["optim.last_rate=0.5"], "optim.last_rate"),
    ],
)
def test_a_training_that_cannot_be_is_told_in_one_line(
    tmp_path: Path, voc: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    words = [*WORDS, f"data.folder={voc}", f"folder={tmp_path}", "trainer.max_steps=1", *given]
    assert program.main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_rate_falls_as_published_or_along_a_cosine() -> None:
    steps = DetectionOptimConfig(warmup_images=10, total_images=1200)
    rates = [steps.rate_at(n) / 1e-4 for n in (0, 4, 700, 800, 1099, 1100, 5000)]
    assert rates == pytest.approx([0.1, 0.5, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = DetectionOptimConfig(schedule="cosine", warmup_images=1, total_images=1200)
    middle, end = cosine.rate_at(600), cosine.rate_at(1200)
    assert (middle, end) == pytest.approx((0.505e-4, 1e-6))


@pytest.mark.slow
def test_eight_pictures_are_learned_by_heart(tmp_path: Path, voc: Path) -> None:
    run(tmp_path, voc, "trainer.max_steps=120", "data.batch_size=8")
    options = DetectionEvalOptions(folder=str(voc), weights=str(tmp_path / "weights.safetensors"))
    assert evaluate(options).ap50 > 0.9


def truth_of(boxes: list[list[float]], classes: list[int]) -> TrueBoxes:
    count = len(boxes)
    corners = np.array(boxes, np.float32).reshape(count, 4)
    return TrueBoxes(corners, np.array(classes, int), np.zeros(count, bool))


def found_of(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    corners = np.array(boxes, np.float32).reshape(len(boxes), 4)
    labels = tuple(LABELS[i] for i in classes)
    return Detections(
        corners - np.float32(0.5), labels, np.array(scores, np.float32), np.array(classes, int),
        (100, 100),
    )  # fmt: skip


def test_average_precision_is_that_worked_out_by_hand() -> None:
    truth = truth_of([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])
    # Right, wrong, right: precision 1 up to recall 0.5, then 2 / 3.
    found = found_of(
        [[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 61]], [0.9, 0.8, 0.7], [0, 0, 0]
    )
    value = average_precision([image_hits(found, truth, 0)])
    assert value == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision([image_hits(found, truth, 1)]) != value  # NaN: nothing to find.


def test_a_true_box_is_found_once() -> None:
    overlap = np.array([[0.9], [0.8]])
    assert match(overlap, np.array([False]), 0.5) == [0, -1]
    assert match(overlap, np.array([True]), 0.5) == [0, 0]


def test_nothing_found_scores_nothing() -> None:
    found = score([found_of([], [], [])], [truth_of([[0, 0, 9, 9]], [1])], LABELS)
    assert (found.ap50, found.of_class["blue"]) == (0, 0)
    assert np.isnan(found.of_class["red"])


def random_result(seed: int) -> tuple[Detections, TrueBoxes]:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 150, (12, 2))
    boxes = np.concatenate([low, low + rng.integers(20, 120, (12, 2))], axis=1).astype(np.float32)
    classes = rng.integers(0, 2, 12)
    truth = TrueBoxes(boxes, classes, rng.random(12) < 0.15)
    near = (boxes + rng.integers(-6, 7, boxes.shape))[rng.permutation(12)[:9]]
    stray = np.concatenate([low[:4], low[:4] + 30], axis=1).astype(np.float32)
    every = np.concatenate([near, stray])
    # Scores that differ: the order of equals is nobody's.
    scores = (rng.permutation(900)[:13] + 50) / 1000
    return found_of(every.tolist(), scores.tolist(), rng.integers(0, 2, 13).tolist()), truth


@pytest.mark.parametrize("package", ["pycocotools", "faster_coco_eval"])
def test_figures_are_those_of_coco(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason="the extra `vision` is not installed")
    if package == "pycocotools":
        monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    results = [random_result(seed) for seed in range(20)]
    found, truths = [f for f, _ in results], [t for _, t in results]
    plain, figures = score(found, truths, LABELS), coco_figures(found, truths, LABELS)
    assert (plain.ap, plain.ap50, plain.ap75) == pytest.approx(
        (figures["ap"], figures["ap50"], figures["ap75"]), abs=1e-6
    )
    assert 0.05 < plain.ap < plain.ap50 < 0.95
    assert plain.ap50_interval[0] < plain.ap50 < plain.ap50_interval[1]


def test_the_evaluation_is_a_program(
    tmp_path: Path, voc: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(voc), f"weights={weights}", f"output={tmp_path / 'a.json'}", "images=2"]
    assert eval_main(words) == 0
    assert "2 images: AP 0." in capsys.readouterr().out
    report = json.loads((tmp_path / "a.json").read_text())
    assert set(report["score"]["of_class"]) == set(LABELS)
    assert eval_main([str(voc), f"weights={weights}", "split=none"]) == 2


def test_an_engine_that_is_not_installed_is_told(
    voc: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pycocotools", "faster_coco_eval"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    options = DetectionEvalOptions(folder=str(voc), weights=str(weights), engine="coco")
    with pytest.raises(UsageError, match=r"quadmatch\[vision\]"):
        evaluate(options)
