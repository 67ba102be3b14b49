"""What the photometric refinement adds to the time of a pair.

    python -m benchmarks.refinement [matches=600,2000] [rounds=15] [threads=2]

The two photographs of the demo at 640 x 480, with the bundled weights; the threshold is chosen so
that as many matches are left as asked. Each round matches without refinement and refines what was
found, in turn, so that a slow moment of the machine meets both. Prints the medians of the seconds
that the processor spent, all threads together, and the share that the refinement adds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import median

import torch

from conf import plain_options
from matcher.images.load import load_image
from matcher.images.preprocess import resize
from matcher.network.photometric import refine_matches
from matcher.predictor import Predictor, load_matcher
from matcher.runtime import own_settings, warm_allocator
from matcher.terminal.program import program

DEMO = [Path(__file__).resolve().parents[1] / "assets" / f"demo{i}.jpg" for i in (0, 1)]
SIZE = (640, 480)
DEFAULTS = {"matches": "600,2000", "rounds": "15", "threads": "2"}


@own_settings()
def seconds(predictor: Predictor, count: int, rounds: int) -> tuple[list[float], list[float], int]:
    """Seconds of the network and of the refinement of each round, and the matches."""
    images = [resize(load_image(path).gray, SIZE) for path in DEMO]
    pair = predictor.reader.read(images[0], images[1])
    everything = predictor.match(*images, threshold=0.0).scores
    threshold = float(everything[min(count, len(everything) - 1)])
    network, stage, found = [], [], 0
    for _ in range(rounds):
        start = time.process_time()
        features = [predictor.extract(each) for each in pair]
        matches = predictor.match_features([pair], features[:1], features[1:], threshold)[0]
        middle = time.process_time()
        found = len(refine_matches(pair, matches, predictor.device))
        network.append(middle - start)
        stage.append(time.process_time() - middle)
    return network[1:], stage[1:], found


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    chosen = plain_options(words, DEFAULTS)
    torch.set_num_threads(int(chosen["threads"]))
    warm_allocator()
    predictor = load_matcher("compact", device="cpu", refine="none")
    for count in chosen["matches"].split(","):
        network, stage, found = seconds(predictor, int(count), int(chosen["rounds"]) + 1)
        share = median(b / a for a, b in zip(network, stage, strict=True))
        times = f"network {median(network):.3f} s, refinement {median(stage):.3f} s"
        print(f"{found:5d} matches: {times}, {100 * share:.1f}% of it", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
