"""Classes of an image: `python -m matcher.tasks.classification IMAGE weights=FILE ...`."""

from __future__ import annotations

import sys

from matcher.errors import Code, UsageError
from matcher.files import read_text
from matcher.options import Device
from matcher.tasks.classification.predictor import Classifier
from matcher.terminal.program import program
from matcher.validation.checked import Name, Positive, checked
from matcher.validation.words import describe, options_and_images

USAGE = """\
usage: python -m matcher.tasks.classification IMAGE weights=FILE [key=value ...] [--debug]

Tells the most probable classes of an image. No weights are bundled: give a file that training has
written, or one of the published classifiers, which do not tell their name.

examples:
  python -m matcher.tasks.classification dog.jpg weights=runs/imagenette/final.safetensors
  python -m matcher.tasks.classification dog.jpg weights=b2.pth model=quadtree_b2 labels=names.txt

options and their defaults:
{options}
"""


@checked()
class ClassificationOptions:
    """What one call asks for."""

    image: Name
    """An image."""
    weights: str = ""
    """Weights: a .safetensors of this project or a published .pth."""
    model: str = ""
    """Name of a published classifier, quadtree_b0 to quadtree_b4; empty: the file tells."""
    labels: str = ""
    """Text file with the name of a class in each line; empty: those in the weights."""
    top: Positive = 5
    """How many classes are told."""
    side: Positive | None = None
    """Pixels of the square that the network sees; null: as the weights tell."""
    device: Device | None = None
    """cpu, cuda, cuda:1 or mps; null: cuda where there is one, else cpu."""

    def __post_init__(self) -> None:
        if not self.weights:
            remedy = "give weights=FILE (and model=quadtree_b0 for a published one)"
            raise UsageError(Code.REFUSED_WORD, "weights", "no weights are bundled", remedy)


def read_options(words: list[str]) -> ClassificationOptions:
    """The options that the words of a command line give; errors as `options_and_images`."""
    usage = "python -m matcher.tasks.classification IMAGE weights=FILE"
    return options_and_images(ClassificationOptions, words, ("image",), usage)


def read_labels(path: str) -> tuple[str, ...]:
    """The lines of a text file that hold something.

    Raises:
        UsageError: there is no such file (E111), or it is no text or empty (E112).
    """
    labels = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not labels:
        raise UsageError(Code.UNREADABLE_LIST, path, "holds no name", "write a class in each line")
    return labels


@program(lambda: USAGE.format(options=describe(ClassificationOptions)), needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = read_options(words)
    labels = read_labels(options.labels) if options.labels else ()
    classifier = Classifier(
        options.weights, options.model, labels=labels, side=options.side, device=options.device
    )
    found = classifier.classify(options.image, options.top)
    for label, score in zip(found.labels, found.scores, strict=True):
        sys.stdout.write(f"{score:7.2%}  {label}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
