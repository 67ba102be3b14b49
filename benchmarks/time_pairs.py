"""Time of pairs with the bundled weights, by public names alone, so that any commit can tell.

    PYTHONPATH=TREE python -P benchmarks/time_pairs.py PHOTOGRAPH THREADS

Answers a line ``HEIGHT WIDTH THRESHOLD`` on stdin with one of JSON on stdout: seconds by the clock
and of the processor, scores of the matches, and the largest memory so far in MB. The pair is the
photograph at that size and itself moved by one cell.
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import torch
from PIL import Image

from matcher import load_matcher


def main(photograph: str, threads: int) -> None:
    torch.set_num_threads(threads)
    # As match.py does, by whatever name: a large block that is freed keeps glibc from giving back.
    torch.empty(31 << 20, dtype=torch.uint8)
    matcher = load_matcher("compact", device="cpu", max_side=None)
    for line in sys.stdin:
        height, width, threshold = line.split()
        with Image.open(photograph) as opened:
            image0 = np.asarray(opened.convert("L").resize((int(width), int(height))))
        image1 = np.roll(image0, 8, axis=1)
        clock, processor = time.perf_counter(), time.process_time()
        matches = matcher.match(image0.copy(), image1, threshold=float(threshold))
        seconds = time.perf_counter() - clock, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps([*seconds, matches.scores.tolist(), peak]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
