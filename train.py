"""Train a network: python train.py [task=TASK] [experiment=NAME] [key=value ...]

Examples:
  python train.py experiment=compact                  the bundled model, on synthetic scenes
  python train.py experiment=compact resume=auto      go on where a run was stopped
  python train.py experiment=compact init_weights=matcher/weights/compact.safetensors
  python train.py experiment=smoke                    a minute, to see that it works
  python train.py debug=overfit                       one batch by heart
  python train.py task=stereo                         the bundled stereo network
  python train.py task=detection data.folder=BCCD     a detector of blood cells
  python train.py task=classification data.folder=IMAGENETTE   a classifier of its folders

docs/configuration.md lists the options; files of conf/ set many in a word. A run keeps its
checkpoints, logs and exported weights in its folder, runs/NAME.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback

from conf import compose_run
from data.classification import build_classification_data
from data.datamodule import TrainingData, build_datamodule
from data.detection import build_detection_data
from data.stereo import build_stereo_data
from eval.box_precision import BoxPrecision
from eval.callbacks import MatchFigures, PoseAUC
from eval.methods.peers import load_peer
from eval.methods.xfeat import XFeatNet
from matcher.errors import Code, ProcessError
from matcher.files import only_writer, write_atomically
from matcher.runtime import keep_freed_memory
from matcher.tasks.classification.module import ClassificationModule
from matcher.tasks.classification.training import ClassificationRunConfig
from matcher.tasks.detection.module import DetectionModule
from matcher.tasks.detection.training import DetectionRunConfig
from matcher.tasks.stereo.module import StereoModule
from matcher.tasks.stereo.training import StereoRunConfig
from matcher.terminal.program import program
from matcher.training import checkpointing
from matcher.training.base import TrainingModule
from matcher.training.config import BaseRunConfig, RunConfig
from matcher.training.distillation import Teacher
from matcher.training.module import MatcherModule
from matcher.training.trainer import fit_module, hush_lightning, steps_of_run
from matcher.validation.checked import config_from_dict

logger = logging.getLogger("train")

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Variables that number the processes that train together."""
IN_USE = "wait for that training, or name= starts another beside it"
DEAD_LOADER = re.compile(r"DataLoader (worker \(pid|timed out)")


class LoaderError(ProcessError):
    """A process that loads data died, killed or out of memory, or hangs."""


class Job(NamedTuple):
    """What is trained, on what, and who watches."""

    run: BaseRunConfig
    data: Callable[[], TrainingData]
    module: Callable[[int, int], TrainingModule]
    """Takes pairs a step and pairs an epoch."""
    watchers: Callable[[], list[Callback]]


def matching(values: dict[str, Any], data: dict[str, Any]) -> Job:
    """Training of a matcher."""
    run = config_from_dict(RunConfig, values)
    source = partial(build_datamodule, data, run.seed, run.model.canvas)
    return Job(
        run, source, partial(MatcherModule, run, teacher=teacher_of(run)), partial(validators, run)
    )


def teacher_of(run: RunConfig) -> Teacher | None:
    """The network whose features a run learns."""
    if not run.teacher:
        return None
    network = XFeatNet()
    load_peer(network, Path(run.teacher))
    return network.eval().requires_grad_(False)


def stereo(values: dict[str, Any], data: dict[str, Any]) -> Job:
    """Training of a stereo network."""
    run = config_from_dict(StereoRunConfig, values)
    source = partial(build_stereo_data, data, run.seed)
    return Job(run, source, lambda pairs, _: StereoModule(run, pairs), list)


def detection(values: dict[str, Any], data: dict[str, Any]) -> Job:
    """Training of a detector."""
    run = config_from_dict(DetectionRunConfig, values)
    source = partial(build_detection_data, data, run.model, run.seed)
    return Job(
        run,
        source,
        lambda images, _: DetectionModule(run, images),
        lambda: [BoxPrecision(run.model.names)],
    )


def classification(values: dict[str, Any], data: dict[str, Any]) -> Job:
    """Training of a classifier of the folders of `data`."""
    run = config_from_dict(ClassificationRunConfig, values)
    images = build_classification_data(data, run.seed)
    run = replace(run, model=replace(run.model, classes=len(images.labels)))
    source, side = partial(build_classification_data, data, run.seed), images.config.side
    return Job(run, source, lambda n, _: ClassificationModule(run, images.labels, side, n), list)


TASKS = {
    "matcher": matching,
    "stereo": stereo,
    "detection": detection,
    "classification": classification,
}


def train(config: dict[str, Any], datamodule: TrainingData | None = None) -> dict[str, float]:
    """Run a training and return its last metrics.

    A loader process that dies or hangs is survived once, where one process trains: the run goes on
    from its newest checkpoint.

    Args:
        config: as `conf.compose_run` composes it.
        datamodule: instead of the one that `config` describes.

    Raises:
        UsageError: a configuration that cannot work, a file that is missing, or another training
            in the folder.
        StorageError: checkpoints that are damaged, or a folder that cannot be written.
        CheckpointError: weights that do not fit, or a checkpoint of another program.
        DivergedError: too many steps without a finite loss.
        LoaderError: a second loader process died, or one of several that train lost its own.
        InterruptedError: SIGINT or SIGTERM, its number in `errno`; a checkpoint is saved.
    """
    values = dict(config)
    data = values.pop("data", {})
    job = TASKS[values.get("task", "matcher")](values, data)
    with only_writer(Path(job.run.folder), IN_USE) if leads() else nullcontext():
        return train_in_folder(job, config, datamodule)


def leads() -> bool:
    """Whether this process starts those that train together with it, or trains alone."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def train_in_folder(
    job: Job, config: dict[str, Any], datamodule: TrainingData | None
) -> dict[str, float]:
    """As `train`, in a folder that no other training writes to."""
    run = job.run
    resume = prepare(run, config)

    def start(checkpoint: Path | None) -> dict[str, float]:
        return fit(job, datamodule or job.data(), checkpoint)

    try:
        return start(resume)
    except LoaderError as error:
        if run.trainer.devices * run.trainer.nodes > 1:
            raise
        logger.warning("%s: going on from the newest checkpoint", error)
    # Outside of the handler, where the error no longer keeps the dead loader alive.
    return start(checkpointing.newest_intact(Path(run.folder)) or resume)


def prepare(run: BaseRunConfig, config: dict[str, Any]) -> Path | None:
    """Set up the process and the folder of a run; the checkpoint that it goes on from."""
    keep_freed_memory()
    if run.trainer.threads:
        torch.set_num_threads(run.trainer.threads)
    folder = Path(run.folder)
    resume = checkpointing.start_from(folder, run.resume)
    if run.resume and resume is None:
        logger.warning("no intact checkpoint in %s: starting afresh", folder)
    newest = checkpointing.checkpoints(folder)[:1]
    if run.resume == "auto" and newest and newest[0] != resume:
        logger.warning("%s is damaged: going on from the one before it", newest[0])
    if leads():
        checkpointing.remove_unfinished(folder)
        write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())
    return resume


def fit(job: Job, datamodule: TrainingData, resume: Path | None) -> dict[str, float]:
    """Train until the end, or until a loader process dies; returns the last metrics."""
    run = job.run
    processes = run.trainer.devices * run.trainer.nodes
    pairs_a_step = datamodule.batch_size * processes * run.trainer.accumulate
    module = job.module(pairs_a_step, datamodule.pairs_an_epoch)
    if resume is not None:
        module.on_load_checkpoint(checkpointing.load_training(resume))
    elif run.init_weights:
        module.start_from(Path(run.init_weights))
    steps = steps_of_run(run.trainer, module, pairs_a_step, datamodule.pairs_an_epoch)
    try:
        trainer = fit_module(run, module, datamodule, steps, resume, job.watchers())
    except (RuntimeError, ConnectionError, EOFError) as error:
        # A process killed while it hands a batch over shows as a broken connection.
        if isinstance(error, RuntimeError) and not DEAD_LOADER.match(str(error)):
            raise
        where = f"after {module.pairs_seen} pairs, the last {module.last_pair}"
        reason = str(error) or type(error).__name__
        raise LoaderError(Code.DEAD_LOADER, "loader", f"{where}: {reason}") from error
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return metrics | {
        "pairs_seen": float(module.pairs_seen),
        "pairs_of_run": float(module.pairs_seen - module.pairs_before),
        "steps": float(trainer.global_step),
    }


def validators(run: RunConfig) -> list[Callback]:
    """What judges and draws at each validation."""
    if not run.trainer.validate_steps:
        return []
    figures = MatchFigures(run.trainer.figures, Path(run.folder) / "figures")
    return [PoseAUC(run.trainer.pose_pairs or None), figures]


@program(__doc__)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    hush_lightning()
    config = compose_run(words)
    metrics = train(config)
    for line in closing_lines(Path(config["folder"]), metrics):
        print(line)
    return 0


def closing_lines(folder: Path, metrics: dict[str, float]) -> list[str]:
    """What a training came to, and where that is."""
    counts = ("steps", "pairs_of_run", "pairs_seen")
    steps, of_run, pairs = (round(metrics[name]) for name in counts)
    values = {name: value for name, value in sorted(metrics.items()) if name not in counts}
    lines = [
        f"{name:<20} {f'{value:.6g}' if math.isfinite(value) else '-'}"
        for name, value in values.items()
    ]
    lines.append(f"{'pairs':<20} {of_run} in this run, {pairs} in all, {steps} steps")
    newest = checkpointing.checkpoints(folder)[:1]
    paths = {
        "weights": folder / checkpointing.WEIGHTS,
        "best weights": folder / checkpointing.BEST_WEIGHTS,
        "checkpoint": newest[0] if newest else folder / "none",
        "log": folder / "run.log",
        "values of all steps": folder / "logs",
        "figures": folder / "figures",
    }
    return lines + [f"{name:<20} {path}" for name, path in paths.items() if path.exists()]


if __name__ == "__main__":
    sys.exit(main())
