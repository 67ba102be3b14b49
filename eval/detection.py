"""Detection measured: average precision of weights on annotated pictures, as COCO does it.

`python -m eval.detection FOLDER weights=FILE [key=value ...]`
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np

from data.detection import find_annotated
from data.real.boxes import AnnotatedImage, TrueBoxes, read_annotated
from eval.average_precision import THRESHOLDS, bootstrap_interval, image_hits, precisions
from eval.figures_file import tell_score
from matcher.errors import require_extra
from matcher.files import check_targets
from matcher.tasks.detection.files import coco_results
from matcher.tasks.detection.labels import category_numbers
from matcher.tasks.detection.predictor import Detector
from matcher.tasks.detection.structures import Detections
from matcher.terminal.program import program
from matcher.validation.checked import JsonFile, Name, NotNegative, checked
from matcher.validation.words import describe, options_from_words

USAGE = """\
usage: python -m eval.detection FOLDER weights=FILE [key=value ...] [--debug]

Measures a detector on a folder in VOC's form, or on the pictures of COCO's JSON.

options and their defaults:
{options}
"""
SIZES = ("small", "medium", "large")


@checked()
class DetectionEvalOptions:
    """What one call measures."""

    folder: Name
    """VOC's folder, or that of the pictures of `annotations`."""
    weights: Name
    """Weights: a .safetensors of this project or a published .pth."""
    model: str = ""
    """Name of a published detector, quadtree_b0_dense to quadtree_b4_dense; empty: the file
    tells."""
    annotations: str = ""
    """COCO's JSON of instances; empty: `folder` has VOC's form."""
    split: str = "test"
    """VOC's list of pictures in ImageSets/Main; empty: all."""
    engine: Literal["plain", "coco"] = "plain"
    """``plain``: of this project, without sizes; ``coco``: pycocotools or faster-coco-eval
    (the extra ``vision``), with AP by size too."""
    images: NotNegative = 0
    """Pictures, at most; 0: all."""
    output: JsonFile = ""
    """JSON file of the figures; empty: none."""


@dataclass(frozen=True)
class DetectionScore:
    """Average precision from 0 to 1; NaN where there is nothing to find."""

    images: int
    ap: float
    """Mean over classes and the overlaps 0.5, 0.55 to 0.95"""
    ap50: float
    ap75: float
    ap50_interval: tuple[float, float]
    """95%, by a bootstrap over images"""
    of_class: dict[str, float]
    """AP50 of each class"""
    of_size: dict[str, float]
    """AP of boxes below 32 x 32 pixels, below 96 x 96, and larger; of the engine ``coco`` alone"""

    def __str__(self) -> str:
        low, high = self.ap50_interval
        lines = [
            f"{self.images} images: AP {self.ap:.3f}, AP50 {self.ap50:.3f} "
            f"({low:.3f} to {high:.3f}), AP75 {self.ap75:.3f}"
        ]
        lines += [f"AP50 {name:<16} {value:.3f}" for name, value in self.of_class.items()]
        lines += [f"AP {name:<18} {value:.3f}" for name, value in self.of_size.items()]
        return "\n".join(lines)


def score(
    found: Sequence[Detections], truths: Sequence[TrueBoxes], labels: Sequence[str]
) -> DetectionScore:
    """The figures of what was found in images, by the plain engine."""
    classes = [
        [image_hits(f, t, number) for f, t in zip(found, truths, strict=True)]
        for number in range(len(labels))
    ]
    table = precisions(classes)
    known = table[~np.isnan(table[:, 0])]
    means = known.mean(axis=0) if len(known) else np.full(len(THRESHOLDS), np.nan)
    return DetectionScore(
        len(found),
        float(means.mean()),
        float(means[0]),
        float(means[THRESHOLDS.index(0.75)]),
        bootstrap_interval(classes) if len(known) else (float("nan"), float("nan")),
        {label: float(row[0]) for label, row in zip(labels, table, strict=True)},
        {},
    )


def coco_figures(
    found: Sequence[Detections], truths: Sequence[TrueBoxes], labels: Sequence[str]
) -> dict[str, float]:
    """``ap``, ``ap50``, ``ap75``, ``small``, ``medium``, ``large`` by pycocotools or
    faster-coco-eval; NaN where there is nothing to find.

    Raises:
        UsageError: neither is installed (E210).
    """
    coco_class, evaluation = coco_classes()
    results = [e for i, f in enumerate(found) for e in coco_results(f, i + 1, labels)]
    if not results:
        return dict.fromkeys(("ap", "ap50", "ap75", *SIZES), 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = coco_truth(truths, labels)
        truth.createIndex()
        measured = evaluation(truth, truth.loadRes(results), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    values = [float(v) if v >= 0 else float("nan") for v in measured.stats[:6]]
    return dict(zip(("ap", "ap50", "ap75", *SIZES), values, strict=True))


def coco_classes() -> tuple[Any, Any]:
    """COCO and its evaluation, of the package that is installed, or E210."""
    with contextlib.suppress(ImportError):
        fast = import_module("faster_coco_eval")
        return fast.COCO, fast.COCOeval_faster
    require_extra("pycocotools", "vision", "engine=coco")
    parts = (import_module(f"pycocotools.{name}") for name in ("coco", "cocoeval"))
    coco, cocoeval = parts
    return coco.COCO, cocoeval.COCOeval


def coco_truth(truths: Sequence[TrueBoxes], labels: Sequence[str]) -> dict[str, Any]:
    """True boxes of images 1, 2, ... as the content of COCO's JSON."""
    numbers = category_numbers(labels)
    annotations = []
    for image, truth in enumerate(truths, 1):
        for box, number, ignored in zip(*(v.tolist() for v in truth), strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            entry = {"id": len(annotations) + 1, "image_id": image, "iscrowd": int(ignored)}
            entry |= {"category_id": numbers[number], "area": width * height}
            annotations.append(entry | {"bbox": [box[0], box[1], width, height]})
    return {
        "info": {},
        "images": [{"id": i + 1} for i in range(len(truths))],
        "categories": [{"id": n, "name": name} for n, name in zip(numbers, labels, strict=True)],
        "annotations": annotations,
    }


def look(
    detector: Detector, images: Sequence[AnnotatedImage]
) -> tuple[list[Detections], list[TrueBoxes]]:
    """What a detector finds in pictures as they are stored, and what is there."""
    found, truths = [], []
    for image in images:
        pixels, truth = read_annotated(image)
        found.append(detector.detect(pixels))
        truths.append(truth)
    return found, truths


def evaluate(options: DetectionEvalOptions) -> DetectionScore:
    """Measure what the options name."""
    if options.engine == "coco":
        coco_classes()
    detector = Detector(options.weights, options.model)
    config = detector.model.config
    images = find_annotated(options.folder, options.annotations, options.split, config)
    found, truths = look(detector, images[: options.images or None])
    plain = score(found, truths, detector.labels)
    if options.engine == "plain":
        return plain
    figures = coco_figures(found, truths, detector.labels)
    of_size = {name: figures.pop(name) for name in SIZES}
    return DetectionScore(**{**asdict(plain), **figures, "of_size": of_size})


@program(lambda: USAGE.format(options=describe(DetectionEvalOptions)), needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    first = [] if "=" in words[0] else [f"folder={words[0]}"]
    options = options_from_words(DetectionEvalOptions, [*first, *words[len(first) :]])
    check_targets(
        [options.output] if options.output else [], [options.weights, options.annotations]
    )
    tell_score(options, evaluate(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
