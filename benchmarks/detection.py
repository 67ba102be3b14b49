"""The published backbone of detection beside PVT's reduction: `python -m benchmarks.detection`.

Forward passes of one image of 800 x 1280 through the backbone, in turns, on one thread, as
processor time; the memory by which a process grows during one; multiply-adds of the backbone and of
the whole detector, attention counted as plain products.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from types import MappingProxyType

import torch
from torch import Tensor

from eval.attention_kinds.costs import multiply_adds
from eval.peak_memory import PeakMemory
from eval.report.tables import markdown_table
from matcher.network.pyramid import NAMES, Pyramid, PyramidConfig
from matcher.tasks.detection.config import DetectorConfig
from matcher.tasks.detection.model import RetinaNet
from matcher.terminal.program import program
from matcher.validation.checked import Positive, checked
from matcher.validation.words import options_from_words

TREE = NAMES["quadtree_b0_dense"]
ROWS: MappingProxyType[str, PyramidConfig] = MappingProxyType(
    {
        "quadtree_b0_dense": TREE,
        "pvt": replace(TREE, attention="pvt", lepe=False),
        "pvt_lepe": replace(TREE, attention="pvt"),
    }
)
"""Backbones of one size; ``pvt_lepe`` is a control with the convolution that the tree has too."""
HEAD = ("backbone", "parameters k", "GMAC", "GMAC of the detector", "CPU s", "peak MB")


@checked()
class Options:
    """Of one call."""

    rounds: Positive = 3
    """How often each is timed."""
    height: Positive = 800
    """Pixels of the image."""
    width: Positive = 1280
    """Pixels of the image."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True)
class Costs:
    """Of one backbone."""

    parameters: int
    multiply_adds: int
    of_detector: int
    """multiply-adds with feature pyramid and head, for COCO's classes"""
    seconds: float
    """processor time of a forward pass, the median of the rounds"""
    megabytes: float


def measure(options: Options) -> dict[str, Costs]:
    """The costs of all rows."""
    torch.set_num_threads(1)
    seconds = times(options)
    found = {}
    for name, config in ROWS.items():
        with torch.device("meta"):  # Counting needs no numbers.
            detector = RetinaNet(DetectorConfig(backbone=config)).eval()
        found[name] = Costs(
            sum(p.numel() for p in detector.backbone.parameters()),
            multiply_adds(detector.backbone.features, options.size, "meta"),
            multiply_adds(detector, options.size, "meta"),
            statistics.median(seconds[name]),
            peak(config, options.size),
        )
    return found


@torch.inference_mode()
def times(options: Options) -> dict[str, list[float]]:
    """Processor seconds of each forward pass, by row."""
    models = {name: Pyramid(config).eval() for name, config in ROWS.items()}
    for model in models.values():
        model.features(image((64, 64)))
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(options.rounds):
        for name, model in models.items():
            start = time.process_time()
            model.features(image(options.size))
            found[name].append(time.process_time() - start)
    return found


def peak(config: PyramidConfig, size: tuple[int, int]) -> float:
    """Megabytes by which a process of its own grows during a forward pass."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, config, size).result()


@torch.inference_mode()
def _peak_here(config: PyramidConfig, size: tuple[int, int]) -> float:
    torch.set_num_threads(1)
    model = Pyramid(config).eval()
    model.features(image((64, 64)))
    seen = image(size)
    before = PeakMemory("cpu")
    base = before.megabytes()
    model.features(seen)
    return before.megabytes() - base


def image(size: tuple[int, int]) -> Tensor:
    """A (1, 3, H, W) image of noise."""
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


def table(found: dict[str, Costs]) -> str:
    """A Markdown table, a line a row."""
    lines = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    for name, c in found.items():
        counts = (
            f"{c.parameters / 1e3:,.0f}",
            *(f"{n / 1e9:.1f}" for n in (c.multiply_adds, c.of_detector)),
        )
        lines.append((f"`{name}`", *counts, f"{c.seconds:.2f}", f"{c.megabytes:,.0f}"))
    return markdown_table(lines)


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = options_from_words(Options, words)
    sys.stdout.write(table(measure(options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
