"""Right matches of photographs turned in the plane: python -m eval.turns WEIGHTS [key=value ...]

Options: pairs=24, photos=FOLDER (default: those of benchmark=warps), angles=[0,30,45,60] degrees.
Image 1 of each pair of benchmark=warps is turned about its center, with room for its corners, and
matched once, without rotate. Prints a line an angle: matches a pair, those right within 3 px, and
their share of those right at the first angle.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import cos, radians, sin
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from eval.benchmarks import load_benchmark
from eval.benchmarks.options import BenchmarkOptions
from matcher.geometry.transforms import warp
from matcher.images.load import read_rgb
from matcher.predictor import load_matcher
from matcher.structures import Matches
from matcher.terminal.program import program
from matcher.validation.checked import Positive, checked
from matcher.validation.words import options_from_words

RIGHT = 3.0
"""Pixels from the true place."""
Angles = Annotated[tuple[float, ...], Field(min_length=1, description="a list of degrees")]


@checked()
class Options:
    """Which pairs, and how far they are turned."""

    pairs: Positive = 24
    photos: str = ""
    angles: Angles = (0.0, 30.0, 45.0, 60.0)


@dataclass
class Counts:
    """Of all pairs of one angle."""

    matches: int = 0
    right: int = 0

    def add(self, matches: Matches, homography: np.ndarray) -> None:
        """Count the matches of a pair whose true (3, 3) homography is known."""
        keypoints0, keypoints1, _ = matches.numpy()
        apart = np.linalg.norm(warp(keypoints0, homography) - keypoints1, axis=1)
        self.matches += len(apart)
        self.right += int((apart <= RIGHT).sum())


def turned(image: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A (H, W, 3) image turned counterclockwise, black where it has no content, and the (3, 3) map
    of its pixels to the turned ones."""
    height, width = image.shape[:2]
    c, s = cos(radians(degrees)), sin(radians(degrees))
    turn = np.array([[c, s], [-s, c]])
    size = np.ceil(np.abs(turn) @ (width, height) - 1e-6).astype(int)
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = (size - 1) / 2 - turn @ ((width - 1) / 2, (height - 1) / 2)
    return cv2.warpPerspective(image, matrix, size.tolist()), matrix


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    options = options_from_words(Options, words[1:])
    benchmark = BenchmarkOptions("warps", "warps", options.photos or None, count=options.pairs)
    matcher = load_matcher(words[0], rotate="off", zoom="off")
    counts = {angle: Counts() for angle in options.angles}
    with TemporaryDirectory() as cache:
        for pair in load_benchmark(benchmark, cache=Path(cache)).pairs:
            image0, image1 = read_rgb(pair.image0), read_rgb(pair.image1)
            for angle, count in counts.items():
                view, turn = turned(image1, angle)
                count.add(matcher.match(image0, view), turn @ pair.homography)
    first = next(iter(counts.values())).right
    sys.stdout.write("degrees  matches  right  share\n")
    for angle, count in counts.items():
        matches, right = (number / options.pairs for number in (count.matches, count.right))
        share = f"{count.right / first:6.1%}" if first else "     -"
        sys.stdout.write(f"{angle:7g}  {matches:7.0f}  {right:5.0f} {share}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
