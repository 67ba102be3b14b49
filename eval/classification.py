"""Classification measured: top-1 and top-5 of weights on a folder of images, one folder a class.

`python -m eval.classification FOLDER weights=FILE [key=value ...]`
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data.real.image_folder import CenterImages, ImageFolder, center_batches, find_images
from eval.figures_file import tell_score
from eval.metrics import wilson_interval
from matcher.errors import Code, UsageError
from matcher.files import check_targets
from matcher.network.pyramid import Pyramid
from matcher.tasks.classification.predictor import Classifier
from matcher.tasks.classification.structures import ImageBatch
from matcher.terminal.program import program
from matcher.validation.checked import JsonFile, Name, Positive, Workers, checked, invalid
from matcher.validation.words import describe, options_from_words

USAGE = """\
usage: python -m eval.classification FOLDER weights=FILE [key=value ...] [--debug]

Measures a classifier on FOLDER/CLASS/IMAGE. Folders are found among the labels of the weights;
weights without labels take them in alphabetical order.

options and their defaults:
{options}
"""


@dataclass(frozen=True)
class ClassificationScore:
    """Shares of images, from 0 to 1, with intervals of 95%."""

    images: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    top5_interval: tuple[float, float]

    def __str__(self) -> str:
        parts = ((1, self.top1, self.top1_interval), (5, self.top5, self.top5_interval))
        told = [f"top-{n} {s:.1%} ({low:.1%} to {high:.1%})" for n, s, (low, high) in parts]
        return f"{self.images} images: {', '.join(told)}"


@checked()
class ClassificationEvalOptions:
    """What one call measures."""

    folder: Name
    """Folder that has one folder a class."""
    weights: Name
    """Weights: a .safetensors of this project or a published .pth."""
    model: str = ""
    """Name of a published classifier, quadtree_b0 to quadtree_b4; empty: the file tells."""
    side: Positive | None = None
    """Pixels of the square that the network sees; null: as the weights tell."""
    batch: Positive = 32
    """Images at a time."""
    workers: Workers = 0
    """Processes that read images."""
    output: JsonFile = ""
    """JSON file of the figures; empty: none."""


@torch.inference_mode()
def ranks(model: Pyramid, batches: Iterable[ImageBatch], columns: Sequence[int]) -> np.ndarray:
    """(N,) of how many classes are more probable than the right one, for each image.

    Args:
        model: in evaluation mode.
        batches: images and their classes.
        columns: the class of the model that each class of the batches is.
    """
    found = []
    where = torch.tensor(columns)
    for batch in batches:
        logits = model(batch.images.to(next(model.parameters()).device)).cpu()
        right = logits.gather(1, where[batch.classes][:, None])
        found.append((logits > right).sum(dim=1))
    return torch.cat(found).numpy()


def score(ranked: np.ndarray) -> ClassificationScore:
    """The figures of the ranks of all images."""
    hits, count = (int((ranked < top).sum()) for top in (1, 5)), len(ranked)
    top1, top5 = ((h / count, wilson_interval(h, count)) for h in hits)
    return ClassificationScore(count, *top1, *top5)


def columns_of(images: ImageFolder, labels: Sequence[str], classes: int) -> list[int]:
    """The class of a model for each folder.

    Raises:
        UsageError: a folder that no label names, or another number of them (E201).
    """
    if not labels:
        if len(images.labels) != classes:
            raise invalid("folder", f"{len(images.labels)} folders", f"{classes}, one a class")
        return list(range(classes))
    numbers = {label: i for i, label in enumerate(labels)}
    unknown = [label for label in images.labels if label not in numbers]
    if unknown:
        what, remedy = f"no class {unknown[0]!r} in the weights", f"known: {', '.join(labels[:10])}"
        raise UsageError(Code.INVALID_VALUE, "folder", what, remedy)
    return [numbers[label] for label in images.labels]


def evaluate(options: ClassificationEvalOptions) -> ClassificationScore:
    """Measure what the options name."""
    images = find_images(options.folder)
    classifier = Classifier(options.weights, options.model, side=options.side)
    model = classifier.model
    named = not classifier.labels[0].startswith("class ")
    columns = columns_of(images, classifier.labels if named else (), model.config.classes)
    batches = center_batches(CenterImages(images, classifier.side), options.batch, options.workers)
    return score(ranks(model, batches, columns))


@program(lambda: USAGE.format(options=describe(ClassificationEvalOptions)), needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    first = [] if "=" in words[0] else [f"folder={words[0]}"]
    options = options_from_words(ClassificationEvalOptions, [*first, *words[len(first) :]])
    check_targets([options.output] if options.output else [], [options.weights])
    tell_score(options, evaluate(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
