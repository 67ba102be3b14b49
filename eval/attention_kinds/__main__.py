"""Compare all kinds of attention: `python -m eval.attention_kinds [key=value ...]`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from data.real.image_folder import CenterImages, center_batches, find_images
from eval.attention_kinds.accuracy import FINAL, Recipe, train_row
from eval.attention_kinds.costs import measure_costs
from eval.attention_kinds.mass import Mass, mass_reached, queries_and_keys
from eval.attention_kinds.report import figure, table
from eval.attention_kinds.rows import ROWS, SIDE
from eval.figures_file import write_figures
from eval.training import Rows, Seeds
from matcher.files import make_folder, write_atomically
from matcher.terminal.program import program
from matcher.training.config import Precision
from matcher.training.trainer import hush_lightning
from matcher.validation.checked import (
    Name,
    NotNegative,
    Positive,
    Threads,
    Workers,
    checked,
    entry_of,
)
from matcher.validation.words import describe, options_from_words
from matcher.weights.pyramid import load_pyramid

USAGE = """\
usage: python -m eval.attention_kinds [key=value ...] [--debug]

Writes table.md, figure.png and costs.json: what each kind of attention costs in one small backbone,
and its top-1 after training on equal images. An interrupted call continues where it stood, row by
row and within a row. Two calls with other rows can share a folder.

examples:
  python -m eval.attention_kinds train=false
  python -m eval.attention_kinds data=datasets/imagenette
  python -m eval.attention_kinds rows=[pvt,quadtree_b] epochs=0.02 validation=50 seeds=[0]

options and their defaults:
{options}
"""
MASS_IMAGES = 16
"""Images on which full attention is compared with what the others look at."""
Epochs = Annotated[float, Field(ge=1e-4, le=1000)]


@checked()
class KindsOptions:
    """What one call measures."""

    rows: Rows = tuple(ROWS)
    """Kinds of attention."""
    train: bool = True
    """Train every row; false: costs alone."""
    data: Name = "datasets/imagenette"
    """Folder with train and val, each with a folder a class."""
    output: Name = "outputs/attention_kinds"
    """Folder of results and of what is needed to continue."""
    seeds: Seeds = (0, 1)
    """Each is one run of every row."""
    epochs: Epochs = 4.0
    """How often every image is seen."""
    batch: Positive = 64
    """Images a step."""
    validation: NotNegative = 0
    """Images of val that are measured; 0: all."""
    rounds: Positive = 5
    """How often times are taken."""
    threads: Threads = 1
    """Of training."""
    workers: Workers = 0
    """Processes that read images."""
    precision: Precision = "auto"
    """Of training; auto: bf16 where the processor computes in it. Equal for all rows."""

    def __post_init__(self) -> None:
        for name in self.rows:
            entry_of("rows", name, ROWS)


@program(lambda: USAGE.format(options=describe(KindsOptions)))
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = options_from_words(KindsOptions, words)
    output = Path(options.output)
    make_folder(output)
    torch.set_num_threads(options.threads)
    hush_lightning()
    runs: dict[str, dict[int, np.ndarray]] = {}
    for seed in options.seeds if options.train else ():
        for name in options.rows:
            runs.setdefault(name, {})[seed] = _trained(name, seed, options)
    costs = measure_costs({name: ROWS[name] for name in options.rows}, options.rounds)
    masses = _masses(options) if "full" in runs else {}
    text = table(costs, runs, masses)
    figures = {"options": asdict(options), "costs": {n: asdict(c) for n, c in costs.items()}}
    write_figures(str(output / "costs.json"), figures)
    write_atomically(output / "table.md", text.encode())
    figure(output / "figure.png", costs, runs)
    sys.stdout.write(text)
    return 0


def _trained(name: str, seed: int, options: KindsOptions) -> np.ndarray:
    recipe = Recipe(
        Path(options.data), options.epochs, options.batch, options.validation, options.workers,
        options.precision,
    )  # fmt: skip
    found = train_row(name, seed, recipe, Path(options.output))
    sys.stdout.write(f"{name}, seed {seed}: top-1 {(found < 1).mean():.1%} of {len(found)}\n")
    sys.stdout.flush()
    return found


def _masses(options: KindsOptions) -> dict[str, Mass]:
    """What every row would reach of the full attention that was trained."""
    weights = Path(options.output) / f"full-{options.seeds[0]}" / FINAL
    found = find_images(Path(options.data) / "val").spread(MASS_IMAGES)
    images = torch.cat([batch.images for batch in center_batches(CenterImages(found, SIDE))])
    stage = queries_and_keys(load_pyramid(weights).model, images)
    masses = {name: mass_reached(ROWS[name], stage) for name in options.rows}
    return {name: mass for name, mass in masses.items() if mass is not None}


if __name__ == "__main__":
    sys.exit(main())
