"""What a training run is made of: frozen dataclasses, checked on construction."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from matcher.config import MatcherConfig
from matcher.validation.checked import (
    Name,
    NotNegative,
    Positive,
    Share,
    Workers,
    checked,
    invalid,
)

Weight = Annotated[float, Field(ge=0, le=1e3)]
Minutes = Annotated[float, Field(ge=0, le=1e7)]
Limit = Annotated[int, Field(ge=-1)]
Precision = Literal["auto", "bf16-mixed", "32-true"]
"""Of a training; auto: bf16 where the hardware is faster in it."""


@checked("loss.")
class LossConfig:
    """Supervision and the terms of the loss."""

    coarse: Literal["focal", "positives"] = "focal"
    """``focal`` over all cells, as published, or ``positives``: log-likelihood of the matches."""
    focal_alpha: Share = 0.25
    """``focal`` only: a factor of the loss."""
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    """``focal`` only: how much certain decisions are discounted."""
    coarse_samples: NotNegative = 0
    """``positives`` with the dual-softmax: true matches of the coarse loss a step, at most; 0: all.
    """
    coarse_weight: Weight = 1.0
    """Weight of the coarse loss."""
    fine_weight: Weight = 1.0
    """Weight of the squared error of the refined position, in half windows."""
    heatmap_weight: Weight = 0.0
    """Weight of the cross-entropy of the fine heat maps with the true position; 0 turns it off."""
    level_weight: Weight = 0.0
    """Weight of the supervision of the coarser QuadTree levels of the cross layers; 0 turns it
    off."""
    teacher_weight: Weight = 0.2
    """Weight of the distance from the features of `teacher`, where a run has one."""
    tolerance: Annotated[float, Field(ge=1e-4, le=1)] = 0.2
    """Relative disagreement of depths above which a cell is hidden."""
    fine_samples: Positive = 2048
    """True matches refined a step, at most."""


@checked("optim.")
class OptimConfig:
    """AdamW, its schedule, clipping and the average of the weights."""

    lr: Annotated[float, Field(ge=1e-9, le=10)] = 8e-3
    """Learning rate of a batch of `canonical_batch` pairs."""
    canonical_batch: NotNegative = 64
    """The learning rate is scaled by pairs a step / `canonical_batch`, warm-up by its inverse, as
    published; 0 takes `lr` and `warmup` as they are."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.1
    """Weight decay of AdamW."""
    schedule: Literal["multistep", "cosine", "trapezoid"] = "multistep"
    """``multistep`` as published, ``cosine`` to 0, or ``trapezoid``: constant, then down to 0."""
    warmup: NotNegative = 1875
    """Steps of linear warm-up."""
    warmup_start: Share = 0.1
    """Share of the learning rate at the first step."""
    milestones: tuple[Positive, ...] = (8, 12, 16, 20, 24)
    """Epochs after which ``multistep`` multiplies by `gamma`."""
    gamma: Share = 0.5
    """Factor of the learning rate at each of the milestones."""
    cooldown: Share = 0.2
    """Share of the steps in which ``trapezoid`` goes down."""
    clip: Annotated[float, Field(ge=0, le=1e6)] = 0.5
    """Largest norm of the gradient; 0 turns clipping off."""
    ema: Annotated[float, Field(ge=0, le=0.99999)] = 0.999
    """Decay of the averaged weights a step; 0 means that the average is the last weights."""


@checked("trainer.")
class TrainerConfig:
    """How the steps are run and what is kept of them."""

    max_steps: Limit = -1
    """Optimizer steps, -1 for no limit; the first limit that is reached ends the run."""
    max_epochs: Limit = -1
    """Epochs, -1 for no limit."""
    max_minutes: Minutes = 0.0
    """Wall-clock limit of this process; 0 for none."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """``auto``, ``cpu`` or ``gpu``."""
    devices: Positive = 1
    """Processes on a machine, each with a GPU of its own where GPUs train."""
    nodes: Positive = 1
    """Machines."""
    strategy: Literal["auto", "ddp"] = "auto"
    """``auto`` (ddp where several processes train) or ``ddp``."""
    precision: Precision = "auto"
    """``auto`` (bf16 where the hardware is faster in it), ``bf16-mixed`` or ``32-true``."""
    channels_last: bool = True
    """Layout of the model in memory: channels last where its maps have 16 channels or more."""
    threads: Workers = 0
    """CPU threads; 0 leaves the default."""
    accumulate: Positive = 1
    """Batches a step."""
    sync_batchnorm: bool = False
    """Take batch statistics over all processes."""
    log_every: Positive = 50
    """Steps between lines of the log."""
    checkpoint_minutes: Minutes = 5.0
    """Minutes between checkpoints; 0 saves at the end only."""
    checkpoint_steps: NotNegative = 0
    """Also save every so many steps; 0 turns it off."""
    keep: Positive = 2
    """Checkpoints kept."""
    export_minutes: Minutes = 15.0
    """Minutes between exports of the averaged weights as safetensors; 0 exports at the end only."""
    validate_steps: NotNegative = 0
    """Steps between validations; 0 turns validation off."""
    overfit: bool = False
    """Train on the first batch alone."""
    progress: bool = True
    """Show a bar in a terminal, lines of steps elsewhere; validations are printed either way."""
    figures: NotNegative = 0
    """Pairs whose matches are drawn into the folder at every validation."""
    pose_pairs: str = ""
    """Folder with pairs_with_gt.txt whose pose AUC is logged at every validation."""

    def __post_init__(self) -> None:
        for name in ("figures", "pose_pairs"):
            if getattr(self, name) and not self.validate_steps:
                expected = "none, or trainer.validate_steps above 0: they belong to validations"
                raise invalid(f"trainer.{name}", getattr(self, name), expected)
        if self.overfit and self.accumulate > 1:
            raise invalid(
                "trainer.accumulate", self.accumulate, "1 with trainer.overfit: one batch"
            )


@checked()
class BaseRunConfig:
    """What runs of every task have in common."""

    judges_poses: ClassVar[bool] = False
    """Whether a validation estimates poses, and draws matches."""
    name: Name = "outdoor"
    """Name of the run."""
    folder: Name = "runs/outdoor"
    """Folder of its checkpoints, logs and exported weights."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 66
    """Seed of the first weights, the order of pairs and rendered scenes."""
    resume: str = ""
    """A checkpoint, or ``auto`` for the newest one that is intact in `folder`."""
    init_weights: str = ""
    """Weights (safetensors) to start from, with a fresh optimizer."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        if self.resume and self.init_weights:
            raise invalid("init_weights", self.init_weights, "empty when `resume` is given")
        for name in () if self.judges_poses else ("figures", "pose_pairs"):
            if value := getattr(self.trainer, name):
                expected = "none: a validation of task=matcher alone has them"
                raise invalid(f"trainer.{name}", value, expected)


@checked()
class RunConfig(BaseRunConfig):
    """One run of train.py that trains a matcher, data excluded."""

    judges_poses: ClassVar[bool] = True
    task: Literal["matcher"] = "matcher"
    """What is trained: a ``matcher``; other tasks have options of their own."""
    teacher: str = ""
    """XFeat's weights (.npz, batch norms folded into convolutions), whose features the backbone
    learns beside the matches; empty: none."""
    model: MatcherConfig = field(default_factory=MatcherConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
