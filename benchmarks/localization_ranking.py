"""Which images of a scene localization matches in full: by descriptors, by matches, by both.

    python -m benchmarks.localization_ranking ../shared/eval/strecha most=5

For each photograph, the share of the ``most`` nearest cameras (by the true poses) among the images
that `matcher.tasks.localization` takes for it out of the others of its scene: as their descriptors
say alone, as the matches of all of them in small say, and as it does, by the matches of those that
descriptors pick. Beside it seconds of the processor for a photograph, descriptors of the others
included. Further words: ``scenes=A,B`` (names of images begin so).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.reconstruction import SCENES, ground_truth
from conf import plain_options
from matcher.predictor import Predictor, load_matcher
from matcher.tasks.localization.localizer import Localizer
from matcher.tasks.localization.scene import SceneImage
from matcher.terminal.program import program

DEFAULTS = {"scenes": SCENES, "most": "5"}
WAYS = {"descriptors": 1, "both": 2, "matches of all": 1000}
"""How images are chosen: `candidates` of `Localizer`."""


def shares(
    matcher: Predictor, images: Path, centers: dict[str, np.ndarray], most: int, candidates: int
) -> Iterator[float]:
    """Of each photograph, the share of the nearest cameras that are chosen."""
    nothing = np.zeros((0, 2), np.float32), np.zeros((0, 3))
    scene = [SceneImage(name, str(images / name), (1, 1), *nothing) for name in centers]
    for image in scene:
        others = [other for other in scene if other is not image]
        localizer = Localizer(matcher, others, most, candidates)
        chosen = {other.name for other in localizer.nearest(image.path)}
        away = {o.name: np.linalg.norm(centers[o.name] - centers[image.name]) for o in others}
        yield len(chosen & {*sorted(away, key=away.__getitem__)[:most]}) / most


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    folder = Path(words[0])
    given = plain_options(words[1:], DEFAULTS)
    most = int(given["most"])
    matcher = load_matcher("compact", device="cpu", offline=True)
    for scene in given["scenes"].split(","):
        centers, _ = ground_truth(folder, scene)
        for way, candidates in WAYS.items():
            started = time.process_time()
            share = np.mean([*shares(matcher, folder / "images", centers, most, candidates)])
            each = (time.process_time() - started) / len(centers)
            found = f"{share:.3f} of the {most} nearest cameras"
            print(f"{scene} {way}: {found}, {each:.2f} s a photograph", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
