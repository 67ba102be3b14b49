"""Time and memory of attention along rows against their width: `python -m benchmarks.stereo_rows`.

The row tree and full rows of the bundled stereo network, one call each on maps of 1/4 of the
images. Times are CPU seconds, the least of several turns; methods take turns, so that a slow moment
of the machine meets both. Memory is how far a process of its own grows during the call.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import torch

from eval.peak_memory import PeakMemory
from eval.report.tables import markdown_table
from matcher.files import require_writable, write_atomically
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.rows import build_row_attention
from matcher.terminal.program import program

WIDTHS = (64, 120, 240, 480, 960, 1920)
METHODS = ("tree", "full")


@dataclass(frozen=True)
class Row:
    """What one width costs, by method."""

    columns: int
    seconds: dict[str, float]
    megabytes: dict[str, float]


class Call:
    """One call of a method on maps of `rows` x `columns` cells."""

    def __init__(self, method: str, rows: int, columns: int, training: bool) -> None:
        config = StereoConfig(cross=method)  # pyright: ignore[reportArgumentType]
        self.attention = build_row_attention(config)
        generator = torch.Generator().manual_seed(0)
        size = (1, config.channels, rows, columns)
        self.maps = [torch.randn(size, generator=generator) for _ in range(3)]
        self.training = training
        for x in self.maps:
            x.requires_grad_(training)

    def run(self) -> None:
        if self.training:
            self.attention(*self.maps).sum().backward()
            for x in self.maps:
                x.grad = None
        else:
            with torch.inference_mode():
                self.attention(*self.maps)

    def seconds(self) -> float:
        """CPU seconds of one call."""
        start = time.process_time()
        self.run()
        return time.process_time() - start


def grown(method: str, rows: int, columns: int, training: bool) -> float:
    """Megabytes by which a process of its own grows during a call."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])  # Torch is imported once for all of them.
    answer: Queue[float] = context.Queue()
    process = context.Process(target=_grow, args=(answer, method, rows, columns, training))
    process.start()
    value = answer.get(timeout=600)
    process.join()
    return value


def _grow(answer: Queue[float], method: str, rows: int, columns: int, training: bool) -> None:
    torch.set_num_threads(1)
    Call(method, rows, 16, training).run()  # What the first call alone takes.
    call = Call(method, rows, columns, training)
    before = PeakMemory("cpu").megabytes()
    peak = PeakMemory("cpu")
    call.run()
    answer.put(peak.megabytes() - before)


def measure(widths: Sequence[int], rows: int, turns: int, training: bool) -> list[Row]:
    """All widths, both methods."""
    found = []
    for columns in widths:
        calls = {name: Call(name, rows, columns, training) for name in METHODS}
        for call in calls.values():
            call.run()
        times = [{name: call.seconds() for name, call in calls.items()} for _ in range(turns)]
        least = {name: min(turn[name] for turn in times) for name in METHODS}
        memory = {name: grown(name, rows, columns, training) for name in METHODS}
        found.append(Row(columns, least, memory))
    return found


def exponent(columns: Sequence[int], costs: Sequence[float]) -> float:
    """n of the power law columns^n nearest to the costs, in their logarithms."""
    return float(np.polyfit(np.log(columns), np.log(costs), 1)[0])


def crossing(columns: Sequence[int], first: Sequence[float], second: Sequence[float]) -> float:
    """Columns from which on `first` costs less than `second`; infinity where it never does.

    Between two widths both costs are taken to be power laws.
    """
    ratio = np.log(np.asarray(first) / np.asarray(second))
    above = np.flatnonzero(ratio >= 0)
    if len(above) == 0:
        return float(columns[0])
    last = int(above[-1])
    if last == len(columns) - 1:
        return math.inf
    part = ratio[last] / (ratio[last] - ratio[last + 1])
    return float(np.exp(np.interp(part, (0, 1), np.log(columns[last : last + 2]))))


def table(found: Sequence[Row], rows: int, wide: int) -> str:
    """A Markdown table, the exponents from `wide` columns on, and the crossing."""
    head = ("columns", "tree ms", "full ms", "tree / full", "tree MB", "full MB")
    lines = [head, ("---:",) * len(head)]
    for row in found:
        tree, full = (1000 * row.seconds[name] for name in METHODS)
        memory = [f"{row.megabytes[name]:.1f}" for name in METHODS]
        times = (f"{tree:.1f}", f"{full:.1f}", f"{tree / full:.2f}")
        lines.append((str(row.columns), *times, *memory))
    far = [row for row in found if row.columns >= wide]
    told = []
    for name in METHODS:
        time_, memory_ = (
            exponent([row.columns for row in far], [max(cost(row)[name], 1e-6) for row in far])
            for cost in (lambda row: row.seconds, lambda row: row.megabytes)
        )
        told.append(f"{name}: time {time_:.2f}, memory {memory_:.2f}")
    every = [row.columns for row in found]
    where = crossing(every, *([row.seconds[name] for row in found] for name in METHODS))
    return (
        f"{markdown_table(lines)}\n{rows} rows. "
        f"Exponents from {wide} columns on: {'; '.join(told)}. "
        f"The tree takes less time from {where:.0f} columns on.\n"
    )


@program()
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stereo_rows", description=__doc__)
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="columns of the map")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--training", action="store_true", help="forward and backward")
    parser.add_argument("--wide", type=int, default=240, help="exponents are fitted from here on")
    parser.add_argument("--output", type=Path, help="JSON file of the figures")
    options = parser.parse_args(words)
    require_writable([options.output] if options.output else [])
    torch.set_num_threads(1)
    found = measure(options.widths, options.rows, options.turns, options.training)
    if options.output:
        text = json.dumps([asdict(row) for row in found], indent=1) + "\n"
        write_atomically(options.output, text.encode())
    print(table(found, options.rows, options.wide))
    return 0


if __name__ == "__main__":
    sys.exit(main())
