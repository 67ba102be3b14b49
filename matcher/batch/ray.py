"""Matching the shards of a run on many machines, through Ray Data (extra ``ray``).

Workers hold a model each and only compute; the driver alone writes. Images and weights must lie
at the same paths on all machines. A worker that dies is started anew and its shards are done
again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import matcher
from matcher.batch.image_names import Root
from matcher.batch.options import CollectionOptions
from matcher.batch.run import Run
from matcher.batch.shards import decode_shard, encode_shard
from matcher.batch.worker import build_shard_matcher, task_of
from matcher.errors import require_extra

MAX_BLOCKS = 10_000


class Worker:
    """Computes shards; Ray makes one in each of its actors."""

    def __init__(self, run: Run, options: CollectionOptions, folder: str, weights: Path) -> None:
        self.run = run
        root = Root(folder, allow_outside=options.allow_outside_root)
        self.matcher = build_shard_matcher(options, weights, run, root)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The bytes of shards for their numbers."""
        numbers = batch["number"].tolist()
        out = np.empty(len(numbers), dtype=object)
        for i, number in enumerate(numbers):
            shard = self.matcher.match(task_of(self.run, number))
            out[i] = encode_shard(shard, number, self.run.keys[number])
        return {"number": batch["number"], "shard": out}


def run_ray(
    run: Run,
    options: CollectionOptions,
    folder: str,
    weights: Path,
    published: Callable[[int], None],
) -> None:
    """Match what is missing on the cluster of RAY_ADDRESS, or on one that is started here, as
    `run_local`; `folder` is what names of images are relative to.

    Raises:
        UsageError: Ray is not installed (E210).
        StorageError: results cannot be written (E401).
    """
    ray = require_extra("ray", "ray", "engine=ray")
    data = require_extra("ray.data", "ray", "engine=ray")
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(log_to_driver=False, include_dashboard=False, runtime_env=_environment())
    try:
        for row in _results(data, run, options, folder, weights):
            number = int(row["number"])
            shard = decode_shard(row["shard"], number, run.keys[number], run.length(number))
            run.write(number, shard)
            published(len(shard))
    finally:
        if started_here:
            ray.shutdown()


def _environment() -> dict[str, dict[str, str]]:
    """Lets workers import this package also where it runs from a checkout."""
    places = [str(Path(matcher.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, places))}}


def _results(data: Any, run: Run, options: CollectionOptions, folder: str, weights: Path) -> Any:
    data.DataContext.get_current().enable_progress_bars = False
    items = [{"number": number} for number in run.missing()]
    blocks = min(len(items), MAX_BLOCKS)
    gpu = torch.cuda.is_available() if options.device is None else "cuda" in options.device
    return (
        data.from_items(items, override_num_blocks=blocks)
        .map_batches(
            Worker,
            fn_constructor_args=(run, options, str(Path(folder).resolve()), weights.resolve()),
            compute=data.ActorPoolStrategy(size=options.workers),
            batch_size=1,
            num_cpus=options.threads or 1,
            num_gpus=1 if gpu else 0,
        )
        .iter_rows()
    )
