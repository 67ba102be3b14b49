"""How much faster than another commit this tree matches a pair, as a user gets it by default.

    python -m benchmarks.against_speed COMMIT [sizes=480x640,1024x1024] [threads=2] [repeats=5]

Checks COMMIT out beside this tree and keeps one process in each. They take turns call by call, so
that a slow moment of the machine meets both, and find as many matches: an eighth of the cells. Each
size has processes of its own, whose largest memory is told. Seconds are medians with the least and
the most; those of the processor leave out what other programs took.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.against import ROOT, checked_out
from benchmarks.pair_methods import PHOTOGRAPH
from benchmarks.tree_process import TreeProcess
from benchmarks.worker import threshold_of
from conf import plain_options
from matcher.terminal.program import program
from matcher.validation.checked import invalid

DEFAULTS = {"sizes": "480x640,1024x1024", "threads": "2", "repeats": "5"}
PROGRAM = "time_pairs.py"


class Call(NamedTuple):
    """What `benchmarks/time_pairs.py` answers."""

    clock: float
    processor: float
    scores: list[float]
    peak_megabytes: float


def call(process: TreeProcess, size: tuple[int, int], threshold: float) -> Call:
    """Match the pair of that size (H, W) in pixels once."""
    process.ask(*size, threshold)
    return Call(*process.answer())


def compare(
    trees: Sequence[Path], size: tuple[int, int], threads: int, repeats: int
) -> list[list[Call]]:
    """Calls of each tree, one after the other in turns; the first of each warmed it up."""
    processes = [TreeProcess(tree, PROGRAM, str(PHOTOGRAPH), threads=threads) for tree in trees]
    try:
        cells = math.prod(size) // 64
        wanted = [threshold_of(call(p, size, 0.0).scores, cells // 8) for p in processes]
        calls: list[list[Call]] = [[] for _ in processes]
        for _ in range(repeats):
            for kept, each, threshold in zip(calls, processes, wanted, strict=True):
                kept.append(call(each, size, threshold))
        return calls
    finally:
        for each in processes:
            each.close()


def lines_of(size: str, ours: Sequence[Call], theirs: Sequence[Call]) -> list[str]:
    """What was measured, in words."""
    out = []
    for what in ("clock", "processor"):
        seconds = [[getattr(each, what) for each in calls] for calls in (theirs, ours)]
        then, now = (
            f"{statistics.median(taken):.3f} s [{min(taken):.3f}, {max(taken):.3f}]"
            for taken in seconds
        )
        ratio = statistics.median(seconds[0]) / statistics.median(seconds[1])
        out.append(f"{size:10} {what:10} {then} to {now}: {ratio:.2f} times as fast")
    peaks = [max(each.peak_megabytes for each in calls) for calls in (theirs, ours)]
    matches = [len(calls[-1].scores) for calls in (theirs, ours)]
    out.append(f"{size:10} memory     {peaks[0]:.0f} MB to {peaks[1]:.0f} MB, matches {matches}")
    return out


def growth(points: Sequence[tuple[int, float]]) -> float:
    """The exponent of seconds over pixels, fitted by least squares of their logarithms."""
    logs = [(math.log(pixels), math.log(seconds)) for pixels, seconds in points]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


@program(__doc__)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    if not words or "=" in words[0]:
        raise invalid("COMMIT", words[0] if words else None, "a commit, as in HEAD~1")
    options = plain_options(words[1:], DEFAULTS)
    sizes = options["sizes"].split(",")
    threads, repeats = int(options["threads"]), int(options["repeats"])
    points: list[list[tuple[int, float]]] = [[], []]
    with (
        tempfile.TemporaryDirectory() as folder,
        checked_out(words[0], Path(folder) / "t") as other,
    ):
        for text in sizes:
            height, width = (int(side) for side in text.split("x"))
            calls = compare((ROOT, other), (height, width), threads, repeats)
            sys.stdout.write("\n".join(lines_of(text, *calls)) + "\n")
            sys.stdout.flush()
            for kept, of_tree in zip(points, calls, strict=True):
                seconds = statistics.median(each.processor for each in of_tree)
                kept.append((height * width, seconds))
    if len(sizes) > 1:
        exponents = growth(points[1]), growth(points[0])
        sys.stdout.write(
            "processor seconds grow with pixels to the power of {:.2f}, now {:.2f}\n".format(
                *exponents
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
