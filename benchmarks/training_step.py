"""How much faster than another commit this tree takes a training step, of ``experiment=compact``.

    python -m benchmarks.training_step COMMIT [sizes=480x640,192x256] [pairs=2] [threads=1]
        [rounds=5]

Checks COMMIT out beside this tree and keeps one process in each (`benchmarks/time_steps.py`), which
train from the weights that their trees bundle on the same batch of rendered pairs. They take turns
step by step, so that a slow moment of the machine meets both. Seconds are medians with the least
and the most; those of the processor leave out what other programs took. Rendering is left out.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.against import ROOT, checked_out
from benchmarks.tree_process import TreeProcess
from conf import plain_options
from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from data.synthetic.scene import SceneBatch
from matcher.terminal.program import program
from matcher.validation.checked import invalid

DEFAULTS = {"sizes": "480x640,192x256", "pairs": "2", "threads": "1", "rounds": "5"}
PROGRAM = "time_steps.py"
WARM_UP = 4
"""Steps until freed memory is used again; the first answer is that of no step."""


class Step(NamedTuple):
    """What `benchmarks/time_steps.py` answers."""

    clock: float
    processor: float
    peak_megabytes: float


def save_batch(path: Path, size: tuple[int, int], pairs: int) -> None:
    """Render pairs of that size (H, W) for `benchmarks/time_steps.py`."""
    config = SyntheticConfig(size=size, pairs=pairs, procedural=27)
    scenes = SyntheticScenes(config)
    pair = render(SceneBatch.collate([scenes[i] for i in range(pairs)]))
    if pair.geometry is None:
        raise ValueError("a rendered pair has geometry")
    images = {name: getattr(pair, name) for name in ("image0", "image1", "scale0", "scale1")}
    names = [f.name for f in fields(pair.geometry) if f.name != "fine"]
    geometry = {name: getattr(pair.geometry, name) for name in names}
    torch.save(images | {"geometry": geometry}, path)


def compare(trees: Sequence[Path], batch: Path, threads: int, rounds: int) -> list[list[Step]]:
    """Steps of each tree, one after the other in turns, after those that warm up."""
    trainings = [
        TreeProcess(tree, PROGRAM, str(batch), str(batch.with_name(f"run_{n}")), threads=threads)
        for n, tree in enumerate(trees)
    ]
    try:
        for training in trainings:
            # Lightning draws one batch ahead, so one is handed out before the first step.
            training.ask()
        steps: list[list[Step]] = [[] for _ in trainings]
        for n in range(WARM_UP + rounds):
            for kept, training in zip(steps, trainings, strict=True):
                training.ask()
                step = Step(*training.answer())
                if n >= WARM_UP:
                    kept.append(step)
        return steps
    finally:
        for training in trainings:
            training.close()


def lines_of(size: str, ours: Sequence[Step], theirs: Sequence[Step]) -> list[str]:
    """What was measured, in words."""
    out = []
    for what in ("clock", "processor"):
        then, now = ([getattr(step, what) for step in steps] for steps in (theirs, ours))
        told = " to ".join(
            f"{statistics.median(some):.3f} s [{min(some):.3f}, {max(some):.3f}]"
            for some in (then, now)
        )
        ratios = [a / b for a, b in zip(then, now, strict=True)]
        ratio = statistics.median(then) / statistics.median(now)
        spread = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        out.append(f"{size:10} {what:10} {told}: {ratio:.2f} times as fast {spread}")
    peaks = [max(step.peak_megabytes for step in steps) for steps in (theirs, ours)]
    out.append(f"{size:10} memory     {peaks[0]:.0f} MB to {peaks[1]:.0f} MB")
    return out


@program(__doc__)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    if not words or "=" in words[0]:
        raise invalid("COMMIT", words[0] if words else None, "a commit, as in HEAD~1")
    options = plain_options(words[1:], DEFAULTS)
    pairs, threads, rounds = (int(options[name]) for name in ("pairs", "threads", "rounds"))
    with (
        tempfile.TemporaryDirectory() as folder,
        checked_out(words[0], Path(folder) / "t") as other,
    ):
        for text in options["sizes"].split(","):
            height, width = (int(side) for side in text.split("x"))
            batch = Path(folder) / text / "batch.pt"
            batch.parent.mkdir()
            save_batch(batch, (height, width), pairs)
            steps = compare((ROOT, other), batch, threads, rounds)
            sys.stdout.write("\n".join(lines_of(text, *steps)) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
