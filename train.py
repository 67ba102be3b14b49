"""Train a matcher: python train.py [experiment=NAME] [key=value ...]

Examples:
  python train.py experiment=compact                  the bundled model, on synthetic scenes
  python train.py experiment=compact resume=auto      go on where a run was stopped
  python train.py experiment=compact init_weights=matcher/weights/compact.safetensors
  python train.py experiment=smoke                    a minute, to see that it works
  python train.py debug=overfit                       one batch by heart

The options are in conf/train.yaml and the groups beside it. A run keeps its checkpoints, logs and
exported weights in its folder, runs/NAME.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, Strategy

from conf import compose
from data.datamodule import build_datamodule
from eval.callbacks import MatchFigures, PoseAUC
from matcher.config import config_from_dict
from matcher.errors import MatcherError, UsageError
from matcher.files import make_folder, write_atomically
from matcher.runtime import keep_freed_memory
from matcher.training import checkpointing
from matcher.training.callbacks import AtomicCheckpointIO, Keeper, Lines
from matcher.training.config import RunConfig, TrainerConfig
from matcher.training.export import load_weights
from matcher.training.module import MatcherModule

logger = logging.getLogger("train")


DEAD_LOADER = re.compile(r"DataLoader (worker \(pid|timed out)")
RANK_TIMEOUT = timedelta(minutes=10)
"""For one process of several to answer the others."""


class LoaderError(MatcherError):
    """A process that loads data died, killed or out of memory, or hangs."""


class PairSource(Protocol):
    """What a data module must tell besides its loaders."""

    @property
    def batch_size(self) -> int: ...
    @property
    def pairs_an_epoch(self) -> int: ...


def train(config: dict[str, Any], datamodule: PairSource | None = None) -> dict[str, float]:
    """Run a training and return its last metrics.

    A loader process that dies or hangs is survived once, where one process trains: the run goes on
    from its newest checkpoint.

    Args:
        config: as composed from ``conf/train.yaml``.
        datamodule: instead of the one that `config` describes.

    Raises:
        UsageError: a configuration that cannot work, or a file that is missing.
        CheckpointError: weights that do not fit.
        DivergedError: too many steps without a finite loss.
        LoaderError: a second loader process died, or one of several that train lost its own.
        InterruptedError: SIGINT or SIGTERM, its number in `errno`; a checkpoint is saved.
    """
    values = dict(config)
    data = values.pop("data", {})
    run = config_from_dict(RunConfig, values)
    keep_freed_memory()
    if run.trainer.threads:
        torch.set_num_threads(run.trainer.threads)
    folder, canvas = Path(run.folder), run.model.canvas
    resume = checkpointing.start_from(folder, run.resume)
    if run.resume and resume is None:
        logger.warning("no intact checkpoint in %s: starting afresh", folder)
    make_folder(folder)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        checkpointing.remove_unfinished(folder)
    write_atomically(folder / "config.json", json.dumps(config, indent=2).encode())
    try:
        return attempt(run, datamodule or build_datamodule(data, run.seed, canvas), resume)
    except LoaderError as error:
        if run.trainer.devices * run.trainer.nodes > 1:
            raise
        logger.warning("%s: going on from the newest checkpoint", error)
    # Outside of the handler, where the error no longer keeps the dead loader alive.
    resume = checkpointing.newest_intact(folder) or resume
    return attempt(run, datamodule or build_datamodule(data, run.seed, canvas), resume)


def attempt(run: RunConfig, datamodule: PairSource, resume: Path | None) -> dict[str, float]:
    """Train until the end, or until a loader process dies."""
    parallel = run.trainer.devices * run.trainer.nodes * run.trainer.accumulate
    pairs_a_step = datamodule.batch_size * parallel
    steps_an_epoch = datamodule.pairs_an_epoch / pairs_a_step
    module = MatcherModule(run, pairs_a_step, steps_an_epoch)
    if run.init_weights and resume is None:
        module.pairs_seen = load_weights(module.model, Path(run.init_weights))
        module.restart_average()
    keeper = Keeper(run)
    trainer = build_trainer(run, steps_of_run(run.trainer, steps_an_epoch), [keeper])
    try:
        trainer.fit(module, datamodule=datamodule, ckpt_path=resume)  # pyright: ignore
    except (RuntimeError, ConnectionError, EOFError) as error:
        # A process killed while it hands a batch over shows as a broken connection.
        if isinstance(error, RuntimeError) and not DEAD_LOADER.match(str(error)):
            raise
        where = f"after {module.pairs_seen} pairs, the last {module.last_pair}"
        reason = str(error) or type(error).__name__
        raise LoaderError(302, "loader", f"{where}: {reason}") from error
    if keeper.signal:
        raise InterruptedError(keeper.signal, f"stopped after step {trainer.global_step}")
    return {k: float(v) for k, v in trainer.callback_metrics.items()} | {
        "pairs_seen": float(module.pairs_seen),
        "steps": float(trainer.global_step),
    }


def steps_of_run(config: TrainerConfig, steps_an_epoch: float) -> int:
    """Optimiser steps until the first of the limits, -1 without one.

    The order of pairs has no end, so that a run has one clock; epochs are a number of steps.
    """
    limits = [config.max_steps] if config.max_steps >= 0 else []
    if config.max_epochs >= 0:
        limits.append(math.ceil(config.max_epochs * steps_an_epoch))
    return min(limits, default=-1)


def build_trainer(run: RunConfig, max_steps: int, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Lightning's trainer as `run` describes it."""
    config = run.trainer
    progress: list[Callback] = []
    observers = list(callbacks)
    if config.validate_steps:
        observers.append(PoseAUC(config.pose_pairs or None))
        observers.append(MatchFigures(config.figures, Path(run.folder) / "figures"))
    bar = config.progress and sys.stderr.isatty()
    if bar:
        progress.append(TQDMProgressBar(refresh_rate=max(1, config.log_every // 5)))
    elif config.progress:
        progress.append(Lines(config.log_every))
    limits: dict[str, Any] = (
        {"limit_val_batches": 0}
        if config.validate_steps == 0
        else {
            "val_check_interval": config.validate_steps * config.accumulate,
            "check_val_every_n_epoch": None,
        }
    )
    return Trainer(
        accelerator=accelerator(config),
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=strategy(config),
        precision=precision(config),  # pyright: ignore[reportArgumentType]
        max_steps=max_steps,
        max_epochs=-1,
        accumulate_grad_batches=config.accumulate,
        sync_batchnorm=config.sync_batchnorm,
        log_every_n_steps=config.log_every,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO(config.keep)],
        callbacks=[*progress, *observers],
        logger=build_loggers(Path(run.folder)),
        default_root_dir=run.folder,
        overfit_batches=1 if config.overfit else 0.0,
        **limits,
    )


def strategy(config: TrainerConfig) -> Strategy | str:
    """How processes train together; one that hangs ends the run after `RANK_TIMEOUT`."""
    if config.strategy == "auto" and config.devices * config.nodes == 1:
        return "auto"
    start = "spawn" if config.strategy == "ddp_spawn" else "popen"
    return DDPStrategy(timeout=RANK_TIMEOUT, start_method=start)


def build_loggers(folder: Path) -> list[Logger]:
    """CSV always, TensorBoard where it is installed."""
    loggers: list[Logger] = [CSVLogger(folder, name="logs")]
    if importlib.util.find_spec("tensorboard"):
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=loggers[0].version))
    return loggers


def accelerator(config: TrainerConfig) -> str:
    """``cuda`` or ``cpu``. Lightning's own choice may be MPS, which has no float64.

    Raises:
        UsageError: fewer GPUs than asked for.
    """
    gpus = torch.cuda.device_count()
    if config.accelerator == "cpu" or (config.accelerator == "auto" and not gpus):
        return "cpu"
    if gpus < config.devices:
        what = f"{config.devices} GPUs are asked for, this machine has {gpus}"
        remedy = "trainer.accelerator=cpu, or fewer trainer.devices"
        raise UsageError(201, "trainer.accelerator", what, remedy)
    return "cuda"


def precision(config: TrainerConfig) -> str:
    """bf16 where the hardware computes in it."""
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    fast = torch.cuda.is_bf16_supported() if on_gpu else torch.cpu._is_avx512_bf16_supported()
    return "bf16-mixed" if fast else "32-true"


def main(words: Sequence[str]) -> int:
    """The program; returns its exit code."""
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if "--help" in words or "-h" in words:
        print(__doc__)
        return 0
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    try:
        metrics = train(compose("train", words))
    except InterruptedError as error:
        print(f"{error.strerror}; resume=auto goes on", file=sys.stderr)
        return 128 + (error.errno or 0)
    except MatcherError as error:
        if debug:
            raise
        print(error, file=sys.stderr)
        return error.exit_code
    for name, value in sorted(metrics.items()):
        print(f"{name} {value:.6g}" if math.isfinite(value) else f"{name} -")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
