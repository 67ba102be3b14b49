"""Lightning's trainer as a run describes it: hardware, precision, limits and loggers."""

from __future__ import annotations

import importlib.util
import logging
import math
import signal
import sys
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, Strategy

from matcher.errors import Code, UsageError
from matcher.files import make_folder
from matcher.runtime import computes_in_bfloat16
from matcher.training.base import TrainingModule
from matcher.training.callbacks import AtomicCheckpointIO, CheckpointAndExport, ProgressLines
from matcher.training.config import BaseRunConfig, TrainerConfig
from matcher.validation.checked import invalid

RANK_TIMEOUT = timedelta(minutes=10)
"""For one process of several to answer the others."""


def hush_lightning() -> None:
    """Keep Lightning's advice out of the output of a program."""
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)


def steps_of_run(
    config: TrainerConfig, module: TrainingModule, pairs_a_step: int, pairs_an_epoch: int
) -> int:
    """Optimizer steps until the first of the limits, -1 without one.

    The order of pairs has no end, so that a run has one clock; epochs are a number of pairs.
    """
    limits = [config.max_steps] if config.max_steps >= 0 else []
    if config.max_epochs >= 0:
        left = max(0, config.max_epochs * pairs_an_epoch - module.pairs_learned)
        limits.append(module.steps_before + math.ceil(left / pairs_a_step))
    return min(limits, default=-1)


def fit_module(
    run: BaseRunConfig,
    module: TrainingModule,
    data: LightningDataModule,
    max_steps: int,
    resume: Path | None = None,
    watchers: Sequence[Callback] = (),
) -> Trainer:
    """Train until the end of a run, with checkpoints and exports in its folder.

    Args:
        run: how, and where.
        module: what learns.
        data: from what.
        max_steps: optimizer steps; -1 for no limit.
        resume: the checkpoint to go on from.
        watchers: what else watches the run.

    Raises:
        InterruptedError: SIGINT or SIGTERM, its number in `errno`; a checkpoint is saved once
            there was a step.
    """
    keeper = CheckpointAndExport(run)
    trainer = build_trainer(run, max_steps, [keeper, *watchers])
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except SystemExit as error:  # What Lightning makes of an interruption that did not wait.
        if trainer.received_sigterm:
            raise InterruptedError(signal.SIGTERM, "stopped before the first step") from error
        raise KeyboardInterrupt from error
    if keeper.signal:
        what = f"stopped after step {trainer.global_step}; resume=auto goes on"
        raise InterruptedError(keeper.signal, what)
    return trainer


def build_trainer(
    run: BaseRunConfig, max_steps: int, callbacks: Sequence[Callback] = ()
) -> Trainer:
    """A trainer that shows its progress and writes checkpoints atomically.

    Args:
        run: everything else.
        max_steps: optimizer steps; -1 for no limit.
        callbacks: what else watches the run.
    """
    config = run.trainer
    bar = config.progress and sys.stderr.isatty()
    lines = config.progress and not bar
    shown: list[Callback] = [ProgressLines(config.log_every, log_of(run), shown=lines)]
    if bar:
        shown.append(TQDMProgressBar(refresh_rate=max(1, config.log_every // 5)))
    validations: dict[str, Any] = {"limit_val_batches": 0}
    if config.validate_steps:
        batches = config.validate_steps * config.accumulate
        validations = {"val_check_interval": batches, "check_val_every_n_epoch": None}
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
        callbacks=[*shown, *callbacks],
        logger=build_loggers(Path(run.folder)),
        default_root_dir=run.folder,
        limit_train_batches=1 if config.overfit else 1.0,
        **validations,
    )


def log_of(run: BaseRunConfig) -> Path:
    """The file that a run adds its lines of progress to."""
    return Path(run.folder) / "run.log"


def strategy(config: TrainerConfig) -> Strategy | str:
    """How processes train together; one that hangs ends the run after `RANK_TIMEOUT`."""
    if config.strategy == "auto" and config.devices * config.nodes == 1:
        return "auto"
    return DDPStrategy(timeout=RANK_TIMEOUT)


def build_loggers(folder: Path) -> list[Logger]:
    """CSV always, TensorBoard where it is installed; `StorageError` (E401) without a folder."""
    make_folder(folder / "logs")
    loggers: list[Logger] = [CSVLogger(folder, name="logs")]
    if importlib.util.find_spec("tensorboard"):
        make_folder(folder / "tensorboard")
        loggers.append(TensorBoardLogger(folder, name="tensorboard", version=loggers[0].version))
    return loggers


def accelerator(config: TrainerConfig) -> str:
    """``cuda`` or ``cpu``. Lightning's own choice may be MPS, which has no float64.

    Raises:
        UsageError: fewer GPUs than asked for, or what only GPUs do.
    """
    gpus = torch.cuda.device_count()
    if config.accelerator == "cpu" or (config.accelerator == "auto" and not gpus):
        if config.sync_batchnorm and config.devices * config.nodes > 1:
            raise invalid("trainer.sync_batchnorm", True, "false where CPUs train together")
        return "cpu"
    if gpus < config.devices:
        what = f"{config.devices} GPUs are asked for, this machine has {gpus}"
        remedy = "trainer.accelerator=cpu, or fewer trainer.devices"
        raise UsageError(Code.INVALID_VALUE, "trainer.accelerator", what, remedy)
    return "cuda"


def precision(config: TrainerConfig) -> str:
    """bf16 where the hardware is faster in it."""
    if config.precision != "auto":
        return config.precision
    on_gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    fast = computes_in_bfloat16(torch.device("cuda" if on_gpu else "cpu"))
    return "bf16-mixed" if fast else "32-true"
