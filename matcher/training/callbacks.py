"""What watches a run: checkpoints and exports by the clock, progress lines, clean interruption."""

from __future__ import annotations

import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.io import CheckpointIO

from matcher.errors import unwritable
from matcher.training import checkpointing
from matcher.training.base import TrainingModule
from matcher.training.config import BaseRunConfig
from matcher.training.export import AUC, exported_auc


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's checkpoints through `matcher.training.checkpointing`; paths are folders."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        step = int(checkpoint["global_step"])
        checkpointing.save_checkpoint(Path(path), step, checkpoint, self.keep)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        return checkpointing.load_training(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


BEST = "val/auc@10"


class CheckpointAndExport(Callback):
    """Save checkpoints, export weights, and end the run when time is up or a signal asks for it.

    ``weights.safetensors`` are the latest, ``best.safetensors`` those of the validation with the
    highest pose AUC@10. SIGINT and SIGTERM end the run after its step, or after the validation that
    is under way, with a checkpoint; a second SIGINT ends it at once. Processes that train together
    agree on all of this, so that it does not matter which of them was asked.

    Lightning's `ModelCheckpoint` would save by the clock in the midst of a step of several batches,
    whose gradients a resumed run lacks, and its `Timer` counts the time of earlier processes too.
    """

    def __init__(self, config: BaseRunConfig) -> None:
        self.config = config.trainer
        self.folder = Path(config.folder)
        self.best = 0.0
        """AUC@10 of the weights in best.safetensors."""
        self.signal = 0
        """Number of the signal that the run ends for."""
        self._sent = 0
        """Number of the signal that this process was sent."""
        self._step = 0
        """The last that was seen."""
        self._saved_step = -1
        self._start = self._saved = self._exported = time.monotonic()

    @property
    def state_key(self) -> str:
        """The name of the state in a checkpoint, which is older than that of the class."""
        return "Keeper"

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._step = trainer.global_step
        # Instead of Lightning's, which talks to the other processes out of the handler; what was
        # there before comes back when Lightning is done.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._sent = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:  # Gradients of an unfinished step would be lost.
            return
        self._step = trainer.global_step
        config = self.config
        steps = (config.checkpoint_steps, config.validate_steps)
        due = any(every and self._step % every == 0 for every in steps)
        due |= passed(config.checkpoint_minutes, self._saved)
        late = passed(config.max_minutes, self._start)
        due, late, self.signal = largest(trainer, due, late, self._sent)
        if due:
            self._save(trainer)
        if passed(config.export_minutes, self._exported):
            self._export(trainer, pl_module)
            self._exported = time.monotonic()
        trainer.should_stop = trainer.should_stop or bool(late or self.signal)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        auc = float(trainer.callback_metrics.get(BEST, 0.0))
        if auc > self.best:
            self.best = auc
            self._saved_step = -1  # What was saved before the validation does not know of it.
            self._export(trainer, pl_module, checkpointing.BEST_WEIGHTS, **{AUC: repr(auc)})

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A validation comes after the checkpoint of its step: a killed run may have seen it alone.
        told = exported_auc(self.folder / checkpointing.BEST_WEIGHTS)
        self.best = max(float(state_dict["best"]), told)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)
        self._export(trainer, pl_module)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.folder)
        self._saved, self._saved_step = time.monotonic(), trainer.global_step

    def _export(
        self,
        trainer: Trainer,
        module: TrainingModule,
        name: str = checkpointing.WEIGHTS,
        **facts: str,
    ) -> None:
        if trainer.is_global_zero:
            module.export(self.folder / name, **facts)


def passed(minutes: float, since: float) -> bool:
    """Whether so much time has passed; 0 minutes never do."""
    return 0 < minutes * 60 <= time.monotonic() - since


def largest(trainer: Trainer, *values: int) -> list[int]:
    """The largest of each value among the processes that train together."""
    if trainer.world_size == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.int32, device=trainer.strategy.root_device)
    return trainer.strategy.reduce(tensor, reduce_op="max").tolist()


class ProgressLines(Callback):
    """Write progress as lines to a log, and print them where there is no bar.

    Args:
        every: steps between lines; the last step has one too.
        path: of the log, which lines are added to.
        shown: whether they are printed.
    """

    def __init__(self, every: int, path: Path, *, shown: bool) -> None:
        self.every, self.path, self.shown = every, path, shown
        self.step = self.told = 0
        self.since, self.pairs = time.monotonic(), 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.step = self.told = trainer.global_step
        self._write(trainer, f"{datetime.now():%Y-%m-%d %H:%M:%S} from step {self.step} on\n")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            return
        self.step = trainer.global_step
        if self.step % self.every == 0:
            self._tell(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.step != self.told:
            self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, module: TrainingModule) -> None:
        now = time.monotonic()
        rate = (module.pairs_seen - self.pairs) / (now - self.since)
        logged = trainer.logged_metrics if self.step % self.every == 0 else {}
        values = {k: float(v) for k, v in logged.items() if "train/" in k}
        known = " ".join(
            f"{name} {values[f'train/{name}']:.4g}"
            for name in module.shown
            if f"train/{name}" in values
        )
        if self.pairs:
            known += f" {rate:.1f} pairs/s"
        line = f"step {self.step} pairs {module.pairs_seen} {known}\n"
        self._write(trainer, line)
        if self.shown and trainer.is_global_zero:
            sys.stdout.write(line)
            sys.stdout.flush()
        self.since, self.pairs, self.told = now, module.pairs_seen, self.step

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        if values and trainer.is_global_zero:
            known = " ".join(f"{name[4:]} {value:.4g}" for name, value in values.items())
            line = f"step {trainer.global_step} validation {known}\n"
            self._write(trainer, line)
            sys.stdout.write(line)
            sys.stdout.flush()

    def _write(self, trainer: Trainer, line: str) -> None:
        if not trainer.is_global_zero:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise unwritable(self.path, error) from error
