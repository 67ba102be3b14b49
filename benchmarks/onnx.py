"""The exported matcher beside PyTorch: matches in common, and processor time.

    python -m benchmarks.onnx [FILE.onnx]

Without a file the bundled weights are exported first. The demo pair is matched at three sizes by
the same predictor options, in turns; times are of a whole call without refinement by pixels.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from PIL import Image

from matcher import Matches, load_matcher
from matcher.interop.onnx import OnnxPredictor, Runtime, export_onnx
from matcher.predictor import Predictor
from matcher.terminal.program import program

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((640, 480), (471, 313), (1024, 768))
"""(width, height)"""
TOP_K = 8192
CLOSE = 0.05
"""Pixels within which two matches of one cell are the same."""
ROUNDS = 3


def share_in_common(first: Matches, second: Matches) -> float:
    """Share of the matches of either that both have: the same cell of image 0, and places in
    image 1 within `CLOSE`."""
    points = [
        {tuple(k0): k1 for k0, k1 in zip(m.keypoints0.tolist(), m.keypoints1, strict=True)}
        for m in (first, second)
    ]
    both = points[0].keys() & points[1].keys()
    same = sum(bool((points[0][k] - points[1][k]).abs().max() < CLOSE) for k in both)
    return same / max(1, len(points[0].keys() | points[1].keys()))


def timed(call: Callable[[], Matches]) -> tuple[Matches, float]:
    start = time.process_time()
    return call(), time.process_time() - start


@program(__doc__)
def main(words: list[str]) -> int:
    """Print the table."""
    plain = {"refine": "none", "zoom": "off", "dtype": "float32", "device": "cpu", "offline": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(words[0]) if words else Path(folder) / "compact.onnx"
        if not words:
            export_onnx(load_matcher("compact", **plain).model, path, top_k=TOP_K)
        ways: dict[str, Predictor] = {
            "PyTorch": load_matcher("compact", **plain),
            "PyTorch, exact": load_matcher("compact", coarsest_cells=0, routing="exact", **plain),
            **{name: OnnxPredictor(path, runtime=name, **plain) for name in get_args(Runtime)},
        }
    print(f"{torch.get_num_threads()} threads, seconds of processor time, least of {ROUNDS}\n")
    print(
        "| size | way | matches | in common with PyTorch, exact | seconds |\n|---|---|---|---|---|"
    )
    for size in SIZES:
        compare(size, ways)
    return 0


def compare(size: tuple[int, int], ways: dict[str, Predictor]) -> None:
    """The rows of one size."""
    files = [ROOT / "assets" / f"demo{i}.jpg" for i in (0, 1)]
    images = [Image.open(file).convert("L").resize(size) for file in files]
    found: dict[str, Matches] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            found[name], took = timed(lambda way=way: way.match(*images))
            seconds[name].append(took)
    for name in ways:
        share = share_in_common(found["PyTorch, exact"], found[name])
        cells = (f"{size[1]}x{size[0]}", name, len(found[name]), f"{share:.1%}")
        print(f"| {' | '.join(map(str, cells))} | {min(seconds[name]):.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
