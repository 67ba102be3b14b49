"""Training inside of a comparison: a run that goes on where it stood."""

from __future__ import annotations

from pathlib import Path

from pytorch_lightning import LightningDataModule

from matcher.training import checkpointing
from matcher.training.base import TrainingModule
from matcher.training.trainer import fit_module


def train_on(module: TrainingModule, data: LightningDataModule) -> None:
    """Train to the last step of the run of `module`, from the newest checkpoint in its folder.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM; a checkpoint is saved.
    """
    run = module.config
    newest = checkpointing.newest_intact(Path(run.folder))
    try:
        fit_module(run, module, data, run.trainer.max_steps, newest)
    except InterruptedError as error:
        raise KeyboardInterrupt from error
