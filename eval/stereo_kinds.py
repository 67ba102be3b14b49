"""Attention along rows compared: a tree, full rows and none, trained on equal rendered pairs.

`python -m eval.stereo_kinds [key=value ...]`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field

from data.config import Eighths
from data.stereo import StereoData, StereoDataConfig
from data.synthetic.photos import list_photos
from data.synthetic.stereo import StereoSceneConfig
from eval.metrics import bootstrap
from eval.report.tables import markdown_table
from eval.stereo import Errors, StereoEvalOptions, mean_iou, measure, network, rendered_pairs
from eval.training import Rows, Seeds, content_of_files, read_result, train_on, write_result
from matcher.files import make_folder, write_atomically
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.module import StereoModule
from matcher.tasks.stereo.training import StereoOptimConfig, StereoRunConfig
from matcher.terminal.program import program
from matcher.training.checkpointing import WEIGHTS
from matcher.training.config import TrainerConfig
from matcher.training.trainer import hush_lightning
from matcher.validation.checked import (
    Name,
    Positive,
    Threads,
    checked,
    entry_of,
)
from matcher.validation.words import describe, options_from_words

USAGE = """\
usage: python -m eval.stereo_kinds [key=value ...] [--debug]

Writes table.md: the bundled stereo network with a tree along rows, with full rows and without
attention, each trained on the same rendered pairs and measured on the same unseen ones. An
interrupted call continues where it stood, row by row and within a row.

options and their defaults:
{options}
"""
ROWS: MappingProxyType[str, StereoConfig] = MappingProxyType(
    {
        "tree": StereoConfig(),
        "full": StereoConfig(cross="full"),
        "none": StereoConfig(layers=0),
    }
)
BASE = "tree"
"""The row that the others are compared with."""
BATCH = 4


@checked()
class StereoKindsOptions:
    """What one call trains and measures."""

    rows: Rows = tuple(ROWS)
    """Attention along rows: ``tree``, ``full`` or ``none``."""
    pairs: Annotated[int, Field(ge=BATCH, multiple_of=BATCH)] = 10_000
    """Pairs of each training, a multiple of 4."""
    seeds: Seeds = (0,)
    """Each is one training of every row."""
    height: Eighths = 128
    """Of all pairs in pixels."""
    width: Eighths = 256
    """Of all pairs in pixels."""
    photos: str = ""
    """Folder of photographs that paint the pairs of the training; empty: procedural textures."""
    rendered: Positive = 100
    """Unseen pairs on which all are measured."""
    output: Name = "outputs/stereo_kinds"
    """Folder of results and of what is needed to continue."""
    threads: Threads = 1
    """Of training."""

    def __post_init__(self) -> None:
        for name in self.rows:
            entry_of("rows", name, ROWS)


class PairFigures(NamedTuple):
    """Counts of one pair."""

    seen: int
    """pixels that both views see"""
    bad: int
    """of them with an error above 3 pixels"""
    error: float
    """sum of their errors in pixels"""
    confusion: list[list[int]]
    """(2, 2): truth by estimate, seen then occluded"""


Runs = Mapping[str, Mapping[int, Sequence[PairFigures]]]
"""The figures of all pairs of the runs of every row, by its name and by seed."""


def train_row(name: str, seed: int, options: StereoKindsOptions) -> list[PairFigures]:
    """The figures of a row on the unseen pairs, from its folder where they stand.

    Raises:
        UsageError: the run in the folder has other settings (E206).
    """
    path = Path(options.output) / f"{name}-{seed}"
    make_folder(path)
    optim = StereoOptimConfig(
        total_pairs=options.pairs, warmup_pairs=max(1, options.pairs // 20), cooldown_pairs=0
    )
    scenes = StereoSceneConfig(
        sizes=((options.height, options.width),), shares=(1.0,), group=BATCH, pairs=options.pairs,
        photos=options.photos or None, seed=seed,
    )  # fmt: skip
    settings = _settings(name, optim, scenes, options)
    done = read_result(path / "result.json", settings, "pairs")
    if done is not None:
        return [PairFigures(*pair) for pair in done]
    trainer = TrainerConfig(
        max_steps=options.pairs // BATCH, precision="32-true", progress=False,
        checkpoint_minutes=2.0, log_every=10,
    )  # fmt: skip
    run = StereoRunConfig(
        name=name, folder=str(path), seed=seed, model=ROWS[name], optim=optim, trainer=trainer
    )
    data = StereoData(StereoDataConfig(batch_size=BATCH, stereo=scenes), seed)
    train_on(StereoModule(run, BATCH), data, settings)
    unseen = StereoEvalOptions(
        rendered=options.rendered, height=options.height, width=options.width
    )
    method = network(str(path / WEIGHTS))
    found = [counted(measure(method, pair)) for pair in rendered_pairs(unseen)]
    write_result(path / "result.json", settings, pairs=found)
    return found


def counted(errors: Errors) -> PairFigures:
    """The counts of the pixels of a pair."""
    seen = errors.seen
    return PairFigures(
        len(seen), int((seen > 3).sum()), float(seen.sum()), errors.confusion.tolist()
    )


def bad3(by_seed: Mapping[int, Sequence[PairFigures]], pairs: np.ndarray | None = None) -> float:
    """Percentage above 3 pixels over all seeds, of those `pairs` or of all."""
    counts = np.array([[(p.bad, p.seen) for p in found] for found in by_seed.values()])
    bad, seen = counts[:, slice(None) if pairs is None else pairs].sum(axis=(0, 1))
    return 100 * float(bad / seen)


def interval(runs: Runs, name: str, base: str = "") -> tuple[float, float]:
    """95% of `bad3` of a row, or of what it has above the row `base`, were there other pairs.

    Pairs are drawn anew with replacement, the same for both rows.
    """
    count = len(next(iter(runs[name].values())))

    def above(pairs: np.ndarray) -> float:
        return bad3(runs[name], pairs) - (bad3(runs[base], pairs) if base else 0.0)

    return bootstrap(above, count)


def table(runs: Runs) -> str:
    """A Markdown table, a line a row."""
    head = ("attention along rows", "parameters k", "3 px %, by seed", "3 px % (95%)",
            f"3 px minus {BASE} (95%)", "EPE px", "occlusion IoU")  # fmt: skip
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for name, by_seed in runs.items():
        pairs = [pair for found in by_seed.values() for pair in found]
        size = sum(p.numel() for p in Stereo(ROWS[name]).parameters())
        each = ", ".join(f"{bad3({seed: found}):.1f}" for seed, found in by_seed.items())
        low, high = interval(runs, name)
        more = "-"
        if name != BASE and BASE in runs:
            worst, best = interval(runs, name, BASE)
            more = f"{bad3(by_seed) - bad3(runs[BASE]):+.1f} ({worst:+.1f} to {best:+.1f})"
        epe = sum(p.error for p in pairs) / sum(p.seen for p in pairs)
        iou = mean_iou(np.sum([p.confusion for p in pairs], axis=0))
        share = f"{bad3(by_seed):.1f} ({low:.1f} to {high:.1f})"
        lines.append((name, f"{size / 1e3:.0f}", each, share, more, f"{epe:.2f}", f"{iou:.2f}"))
    return markdown_table(lines)


def _settings(
    name: str, optim: StereoOptimConfig, scenes: StereoSceneConfig, options: StereoKindsOptions
) -> dict[str, Any]:
    parts = {"model": ROWS[name], "optim": optim, "scenes": scenes}
    plain = {key: asdict(part) for key, part in parts.items()}
    photos = content_of_files(list_photos(options.photos) if options.photos else ())
    return json.loads(json.dumps({**plain, "rendered": options.rendered, "files": photos}))


@program(lambda: USAGE.format(options=describe(StereoKindsOptions)))
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = options_from_words(StereoKindsOptions, words)
    torch.set_num_threads(options.threads)
    hush_lightning()
    runs: dict[str, dict[int, list[PairFigures]]] = {}
    for seed in options.seeds:
        for name in options.rows:
            runs.setdefault(name, {})[seed] = train_row(name, seed, options)
            text = table(runs)
            write_atomically(Path(options.output) / "table.md", text.encode())
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
