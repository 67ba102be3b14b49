"""What drawing and rendering training pairs costs beside the training step.

    python -m benchmarks.generation [photos=FOLDER] [threads=2] [size=192x256] [repeats=9]

The bundled model on batches of eight rendered pairs, as ``train.py experiment=compact`` trains it,
without the loader. Prints medians and ranges of milliseconds a pair, and the share of the step.
"""

from __future__ import annotations

import statistics
import sys
import time
from itertools import pairwise

import torch

from conf import compose, plain_options
from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from data.synthetic.scene import SceneBatch
from matcher.runtime import keep_freed_memory
from matcher.terminal.program import program
from matcher.training.config import RunConfig
from matcher.training.loss.total import training_loss
from matcher.training.module import MatcherModule
from matcher.training.trainer import precision
from matcher.validation.checked import config_from_dict

PAIRS = 8
DEFAULTS = {"photos": "", "threads": "2", "size": "192x256", "repeats": "9"}


def measure(options: dict[str, str]) -> list[list[float]]:
    """Seconds of drawing, rendering and the step, one list a batch; the first is left out."""
    keep_freed_memory()
    torch.set_num_threads(int(options["threads"]))
    height, width = (int(side) for side in options["size"].split("x"))
    values = compose("train", ["experiment=compact", "trainer.accelerator=cpu"])
    values.pop("data")
    run = config_from_dict(RunConfig, values)
    module = MatcherModule(run, PAIRS)
    optimizer = torch.optim.AdamW(module.model.parameters(), lr=run.optim.lr, fused=True)
    count = PAIRS * (int(options["repeats"]) + 1)
    scenes = SyntheticScenes(
        SyntheticConfig(size=(height, width), pairs=count, photos=options["photos"] or None)
    )
    mixed = precision(run.trainer) == "bf16-mixed"
    out = []
    for start in range(0, count, PAIRS):
        times = [time.perf_counter()]
        batch = SceneBatch.collate([scenes[i] for i in range(start, start + PAIRS)])
        times.append(time.perf_counter())
        pair = render(batch)
        times.append(time.perf_counter())
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = training_loss(module.model, pair, run.loss).terms.total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
        out.append([b - a for a, b in pairwise(times)])
    return out[1:]


@program(__doc__)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    rows = measure(plain_options(words, DEFAULTS))
    columns = dict(zip(("draw", "render", "step"), zip(*rows, strict=True), strict=True))
    for name, seconds in columns.items():
        a_pair = sorted(1e3 * s / PAIRS for s in seconds)
        median = statistics.median(a_pair)
        sys.stdout.write(f"{name:7s} {median:7.1f} ms a pair [{a_pair[0]:.1f}, {a_pair[-1]:.1f}]\n")
    share = statistics.median((draw + made) / step for draw, made, step in rows)
    sys.stdout.write(f"drawing and rendering cost {share:.2f} of a training step\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
