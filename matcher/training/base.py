"""What trainings of all tasks share: seeds, steps that are not finite, the average, restarts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from matcher.errors import CheckpointError, Code
from matcher.structures import TensorFields
from matcher.training.config import BaseRunConfig
from matcher.training.nonfinite import DivergedError, SkippedSteps, StepSnapshot
from matcher.training.optim import averaged_copy, update_average
from matcher.weights.checkpoint import without_retired

Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch", bound=TensorFields)


class TrainingModule(pl.LightningModule, Generic[Network, Batch]):
    """Trains a network of a task on batches of pairs.

    Every random draw of a step comes from a seed made of (run seed, step, rank), so that a resumed
    run draws what an uninterrupted one would have drawn. Subclasses say what is learned: `learn`,
    `configure_optimizers`, `load` and `export`.

    Args:
        config: the run.
        build: makes the network; its random draws come from the seed of the run.
        clip: largest norm of the gradient; 0 turns clipping off.
        ema: decay of the averaged weights a step.
        channels_last: layout of the network in memory.
    """

    task: ClassVar[str]
    """Name of the task; a checkpoint holds the state below it."""
    counts: ClassVar[tuple[str, ...]] = ("batches_seen", "pairs_seen", "pairs_inherited")
    """Numbers that survive a restart."""
    shown: ClassVar[tuple[str, ...]] = ("loss", "skipped")
    """Logged values ``train/NAME`` that lines of progress show."""

    def __init__(
        self,
        config: BaseRunConfig,
        build: Callable[[], Network],
        *,
        clip: float,
        ema: float,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.clip, self.ema = clip, ema
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = build()
        if channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.model.train()
        self.average = averaged_copy(self.model)
        self.skipped = SkippedSteps()
        self.batches_seen = 0
        self.pairs_seen = 0
        self.pairs_inherited = 0
        """Those that the weights had seen with which the training began."""
        self.pairs_before = self.steps_before = 0
        """Pairs seen, and steps made, before this run began."""
        self.last_pair = "none"
        """Name of the last pair of the last batch."""
        self._finite = True
        self._snapshot = StepSnapshot()

    def learn(self, batch: Batch) -> Tensor:
        """The loss of a batch; also logs what there is to say of it."""
        raise NotImplementedError

    def load(self, path: Path) -> int:
        """Take the weights of a file into `model`; returns the pairs they have seen.

        Raises:
            UsageError, CheckpointError: the file cannot be used.
        """
        raise NotImplementedError

    def export(self, path: Path, **facts: str) -> None:
        """Publish the averaged weights, with `facts` of them in the metadata."""
        raise NotImplementedError

    def start_from(self, weights: Path) -> None:
        """Begin with the weights of a file; errors are those of `load`."""
        self.pairs_seen = self.pairs_inherited = self.pairs_before = self.load(weights)
        self.average.load_state_dict(self.model.state_dict())

    @property
    def pairs_learned(self) -> int:
        """Pairs that this training has seen itself."""
        return self.pairs_seen - self.pairs_inherited

    @property
    def first_pair(self) -> int:
        """Of those to load next: what is learned by heart stays the same after a restart."""
        return self.pairs_inherited if self.config.trainer.overfit else self.pairs_seen

    def trained(self) -> list[nn.Parameter]:
        """What learns: the network, and what only its training has."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def step_seed(self) -> int:
        """Seed of the draws of the present batch."""
        key = f"{self.config.seed} {self.batches_seen} {self.global_rank}".encode()
        return int.from_bytes(hashlib.sha256(key).digest()[:7], "big")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        seed = self.step_seed()
        torch.manual_seed(seed)
        self.batches_seen += 1
        self.pairs_seen += pairs_in(batch) * self.trainer.world_size
        self._snapshot.begin_batch(self.model, batch, seed)
        total = self.learn(batch)
        self._snapshot.end_batch(total)
        # An infinite loss can have finite gradients: its square has not.
        return total if torch.isfinite(total) else total * total.detach()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        limit = self.clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.trained(), limit)
        self._finite = bool(torch.isfinite(norm))
        if not self._finite:
            # AdamW leaves parameters without gradient alone, moments and step count included.
            optimizer.zero_grad(set_to_none=True)

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self._finite:
            update_average(self.average, self.model, self.ema, self.global_step)
        else:
            self._skip()
        self._snapshot = StepSnapshot()

    def _skip(self) -> None:
        self._snapshot.undo(self.model)
        stop = self.skipped.add(self.global_step)
        path = Path(self.config.folder) / f"nonfinite_{self.batches_seen}_{self.global_rank}.pt"
        if self.skipped.total == 1 or stop:
            self._snapshot.save(path, self.model, asdict(self.config))
        if stop:
            what = f"{self.skipped.total} steps were not finite"
            raise DivergedError(Code.DIVERGED, "training", what, f"see {path}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[self.task] = {
            "config": asdict(self.config),
            **{name: getattr(self, name) for name in self.counts},
            "guard": self.skipped.state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on where the checkpoint was saved.

        Raises:
            CheckpointError: it is none of train.py for this task, or of another architecture
                (E502).
        """
        try:
            # Checkpoints of before 2026-11-29 do not tell what was inherited.
            state = {"pairs_inherited": 0, **checkpoint[self.task]}
            model, skipped = without_retired(state["config"]["model"]), state["guard"]
            counts = {name: int(state[name]) for name in self.counts}
            self.steps_before = int(checkpoint["global_step"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"is no checkpoint of train.py with task={self.task} ({error!r})"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, "resume", what) from error
        if model != asdict(self.config)["model"]:
            what = "the checkpoint holds another model"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, "resume", what, "set model= to match")
        for name, count in counts.items():
            setattr(self, name, count)
        self.pairs_before = self.pairs_seen
        accumulate = self.config.trainer.accumulate
        if state["config"].get("trainer", {}).get("accumulate", accumulate) != accumulate:
            recount(checkpoint, accumulate)
        self.skipped.restore(skipped)


def recount(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Let Lightning count as if every step so far had taken that many batches: the next one begins
    with its first, and validations keep to the steps."""
    steps, loops = int(checkpoint["global_step"]), checkpoint["loops"]["fit_loop"]
    counts = dict.fromkeys(("ready", "started", "processed", "completed"), steps * accumulate)
    loops["epoch_loop.batch_progress"] |= {"total": counts, "current": dict(counts)}
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = steps


def pairs_in(batch: TensorFields) -> int:
    """B of a batch."""
    return next(value for value in vars(batch).values() if isinstance(value, Tensor)).shape[0]
