"""What a small training of the matcher gives with the kinds of attention that can cross.

`python -m eval.attention_kinds.matchers [key=value ...]`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from conf import compose
from data.datamodule import build_datamodule
from data.synthetic.photos import list_photos
from eval.benchmarks.folder import TABLE, Benchmark, read_pairs_with_gt
from eval.benchmarks.sizing import Sizing
from eval.callbacks import batch_errors, folder_errors
from eval.metrics import bootstrap, error_auc
from eval.report.tables import markdown_table
from eval.topk_recall import Options as Scenes
from eval.training import Rows, content_of_files, read_result, train_on, write_result
from matcher.files import make_folder, write_atomically
from matcher.geometry.robust import Estimator
from matcher.network.model import FeatureMatcher
from matcher.terminal.program import program
from matcher.training.config import RunConfig
from matcher.training.module import MatcherModule
from matcher.training.trainer import hush_lightning
from matcher.validation.checked import (
    Name,
    NotNegative,
    Positive,
    Threads,
    checked,
    config_from_dict,
    entry_of,
)
from matcher.validation.words import describe, options_from_words

USAGE = """\
usage: python -m eval.attention_kinds.matchers [key=value ...] [--debug]

Writes matchers.md: AUC of the pose at 10 degrees of matchers of the bundled size that differ in
their attention, trained on the same rendered pairs (experiment=ablation). An interrupted call
continues where it stood, row by row and within a row.

options and their defaults:
{options}
"""
ROWS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "quadtree_b": (),
        "quadtree_b_alone": ("loss.level_weight=0.0",),
        "quadtree_a": ("model.transformer.variant=A",),
        "full": ("model.transformer.attention=full",),
        "linear": ("model.transformer.attention=linear",),
        "pvt": ("model.transformer.attention=pvt",),
    }
)
"""Words of train.py. ``quadtree_b_alone`` lacks the supervision of coarser levels, which kinds
without levels cannot have; ``pvt`` has 2 x 2 cells a key."""
BASE = "quadtree_b"
"""The row that the others are compared with."""
BATCH = 8
SIZE = "160x192"
LIMIT = 10.0
"""Degrees."""
DRAWS = 1000


@checked()
class MatchersOptions:
    """What one call trains and measures."""

    rows: Rows = tuple(ROWS)
    """Kinds of attention."""
    pairs: Annotated[int, Field(ge=BATCH, multiple_of=BATCH)] = 10_000
    """Pairs of each training, a multiple of 8."""
    photos: str = ""
    """Folder of photographs that paint them; empty: procedural textures."""
    real: str = ""
    """Folder of real pairs in the format of ``benchmark=pairs``; empty: rendered ones alone."""
    max_side: Positive = 832
    """Pixels of the longer side of the real pairs."""
    rendered: Positive = 48
    """Rendered pairs that are measured."""
    seed: NotNegative = 7
    """Of the training."""
    threads: Threads = 1
    """Of training."""
    output: Name = "outputs/attention_matchers"
    """Folder of results and of what is needed to continue."""

    def __post_init__(self) -> None:
        for name in self.rows:
            entry_of("rows", name, ROWS)


Errors = Mapping[str, Sequence[float]]
"""Pose errors in degrees of the pairs of each benchmark; infinity without an estimate."""


def train_row(name: str, options: MatchersOptions) -> Errors:
    """The errors of a row, from its folder where they stand.

    Raises:
        UsageError: the run in the folder has other settings (E206).
    """
    path = Path(options.output) / name
    make_folder(path)
    words = [
        *ROWS[name], f"folder={path}", f"seed={options.seed}", "trainer.progress=false",
        f"trainer.max_steps={options.pairs // BATCH}", "trainer.checkpoint_minutes=2.0",
        f"data.batch_size={BATCH}", "data.workers=0",
        *([f"data.synthetic.photos={options.photos}"] if options.photos else []),
    ]  # fmt: skip
    settings: dict[str, Any] = {
        "words": words, "real": options.real, "max_side": options.max_side,
        "rendered": options.rendered, "files": content_of_files(files_of(options)),
    }  # fmt: skip
    done = read_result(path / "result.json", settings, "errors")
    if done is not None:
        return done
    values = compose("train", ["experiment=ablation", *words])
    data = values.pop("data")
    run = config_from_dict(RunConfig, values)
    module = MatcherModule(run, BATCH)
    train_on(module, build_datamodule(data, run.seed, run.model.canvas), settings)
    errors = measure(module.average, options)
    write_result(path / "result.json", settings, errors=errors)
    return errors


def files_of(options: MatchersOptions) -> Iterator[Path]:
    """What the rows learn from and are measured on, besides what is drawn."""
    if options.photos:
        yield from list_photos(options.photos)
    if options.real:
        yield Path(options.real) / TABLE
        for pair in read_pairs_with_gt(Path(options.real)):
            yield from (pair.image0, pair.image1)


def measure(model: FeatureMatcher, options: MatchersOptions) -> Errors:
    """The errors of a matcher on rendered pairs and on the real ones."""
    estimator = Estimator()
    scenes = Scenes(pairs=options.rendered, size=SIZE)
    errors = {"rendered": []}
    for pair in scenes.rendered(model.config.canvas):
        errors["rendered"] += batch_errors(model, pair, estimator)
    if options.real:
        name = Path(options.real).resolve().name
        pairs = tuple(read_pairs_with_gt(Path(options.real)))
        benchmark = Benchmark(name, name, pairs, Sizing(max_side=options.max_side))
        errors[name] = folder_errors(model, benchmark, estimator)
    return errors


def auc(errors: Sequence[float] | np.ndarray) -> float:
    """Area under the curve of recall up to `LIMIT`, in percent."""
    return 100 * error_auc(errors, [LIMIT])[0]


def interval(errors: Sequence[float], base: Sequence[float] | None = None) -> tuple[float, float]:
    """95% of `auc`, or of what it is above that of `base` on the same pairs, were there others."""
    own, other = np.array(errors), None if base is None else np.array(base)

    def above(pairs: np.ndarray) -> float:
        return auc(own[pairs]) - (0.0 if other is None else auc(other[pairs]))

    return bootstrap(above, len(own), DRAWS)


def table(rows: Mapping[str, Errors]) -> str:
    """A Markdown table, a line a row."""
    benchmarks = [*next(iter(rows.values()))]
    head = ["attention"]
    for name in benchmarks:
        head += [f"{name} AUC@10 (95%)", f"minus {BASE} (95%)"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, errors in rows.items():
        cells = [name]
        for benchmark in benchmarks:
            low, high = interval(errors[benchmark])
            cells.append(f"{auc(errors[benchmark]):.1f} ({low:.1f} to {high:.1f})")
            if name == BASE or BASE not in rows:
                cells.append("-")
                continue
            base = rows[BASE][benchmark]
            worst, best = interval(errors[benchmark], base)
            more = auc(errors[benchmark]) - auc(base)
            cells.append(f"{more:+.1f} ({worst:+.1f} to {best:+.1f})")
        lines.append(cells)
    return markdown_table(lines)


@program(lambda: USAGE.format(options=describe(MatchersOptions)))
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = options_from_words(MatchersOptions, words)
    torch.set_num_threads(options.threads)
    hush_lightning()
    rows: dict[str, Errors] = {}
    for name in options.rows:
        rows[name] = train_row(name, options)
        write_atomically(Path(options.output) / "matchers.md", table(rows).encode())
    sys.stdout.write(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
