"""What is in an image and where: `python -m matcher.tasks.detection IMAGE weights=FILE ...`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from matcher.errors import Code, UsageError
from matcher.files import check_targets, write_atomically
from matcher.images.encode import FORMATS, encode
from matcher.images.load import read_rgb
from matcher.options import Device
from matcher.tasks.detection.files import write_csv, write_json
from matcher.tasks.detection.picture import draw_detections
from matcher.tasks.detection.predictor import Detector
from matcher.tasks.detection.structures import Detections
from matcher.terminal.program import program
from matcher.validation.checked import (
    JsonFile,
    Name,
    NotNegative,
    Share,
    checked,
    invalid,
)
from matcher.validation.words import describe, options_and_images

USAGE = """\
usage: python -m matcher.tasks.detection IMAGE weights=FILE [key=value ...] [--debug]

Finds what is in an image and where. No weights are bundled: give a file that training has written,
or one of the published detectors, which do not tell their name.

examples:
  python -m matcher.tasks.detection blood.jpg weights=runs/bccd/weights.safetensors
  python -m matcher.tasks.detection street.jpg weights=b2.pth model=quadtree_b2_dense json=a.json

options and their defaults:
{options}
"""


@checked()
class DetectionOptions:
    """What one call asks for."""

    image: Name
    """An image."""
    weights: str = ""
    """Weights: a .safetensors of this project or a published .pth."""
    model: str = ""
    """Name of a published detector, quadtree_b0_dense to quadtree_b4_dense; empty: the file
    tells."""
    threshold: Share = 0.3
    """Least score of what is told, drawn and written."""
    picture: str = "detections.png"
    """The image with its boxes, a .png, .jpg or .webp; empty: none."""
    json: JsonFile = ""
    """COCO's form of results; empty: none."""
    csv: str = ""
    """A table with a line a box: label, score, x, y, width, height; empty: none."""
    image_id: NotNegative = 0
    """Number of the image in `json`; 0: its name stands there."""
    shorter: NotNegative = 0
    """Pixels of the shorter side that the network sees; 0: as in training."""
    longer: NotNegative = 0
    """Pixels of the longer side, at most; 0: as in training."""
    device: Device | None = None
    """cpu, cuda, cuda:1 or mps; null: cuda where there is one, else cpu."""

    def __post_init__(self) -> None:
        if not self.weights:
            remedy = "give weights=FILE (and model=quadtree_b0_dense for a published one)"
            raise UsageError(Code.REFUSED_WORD, "weights", "no weights are bundled", remedy)
        if self.csv and not self.csv.lower().endswith(".csv"):
            raise invalid("csv", self.csv, "a name that ends in .csv")
        if self.picture and Path(self.picture).suffix.lower() not in FORMATS:
            raise invalid(
                "picture", self.picture, f"a name that ends in one of {', '.join(FORMATS)}"
            )


def read_options(words: list[str]) -> DetectionOptions:
    """The options that the words of a command line give; errors as `options_and_images`."""
    usage = "python -m matcher.tasks.detection IMAGE weights=FILE"
    return options_and_images(DetectionOptions, words, ("image",), usage)


def run(options: DetectionOptions) -> str:
    """Look for things, write what is asked for and tell it in a line."""
    targets = [path for path in (options.picture, options.json, options.csv) if path]
    check_targets(targets, [options.image, options.weights])
    detector = Detector(
        options.weights,
        options.model,
        shorter=options.shorter,
        longer=options.longer,
        device=options.device,
    )
    pixels = read_rgb(options.image, apply_exif=True)
    found = detector.detect(pixels, options.threshold)
    if options.picture:
        suffix = Path(options.picture).suffix.lower()
        write_atomically(options.picture, encode(draw_detections(pixels, found), suffix))
    if options.json:
        image = options.image_id or Path(options.image).name
        write_json(options.json, found, image, detector.labels)
    if options.csv:
        write_csv(options.csv, found)
    return ": ".join([describe_detections(found), *([", ".join(targets)] if targets else [])])


def describe_detections(found: Detections) -> str:
    """How many of which class."""
    counts = Counter(found.labels).most_common()
    return ", ".join(f"{count} {label}" for label, count in counts) or "nothing found"


@program(lambda: USAGE.format(options=describe(DetectionOptions)), needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    sys.stdout.write(f"{run(read_options(words))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
