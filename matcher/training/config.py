"""What a training run is made of: frozen dataclasses, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass, field

from matcher.config import (
    MatcherConfig,
    invalid,
    require_at_least,
    require_choice,
    require_positive,
    require_range,
)


@dataclass(frozen=True)
class LossConfig:
    """Supervision and the terms of the loss."""

    coarse: str = "focal"
    """``focal`` over all cells, as published, or ``positives``: log-likelihood of the matches."""
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    coarse_weight: float = 1.0
    fine_weight: float = 1.0
    """Of the squared error of the refined position, in half windows."""
    heat_weight: float = 0.0
    """Of the cross-entropy of the fine heat maps with the true position; 0 turns it off."""
    block_weight: float = 0.0
    """Of the supervision of the coarser QuadTree levels of the cross layers; 0 turns it off."""
    tolerance: float = 0.2
    """Relative disagreement of depths above which a cell is hidden."""
    fine_samples: int = 2048
    """True matches refined a step, at most."""

    def __post_init__(self) -> None:
        require_choice("loss.coarse", self.coarse, ("focal", "positives"))
        require_range("loss.focal_alpha", self.focal_alpha, 0.0, 1.0)
        require_range("loss.focal_gamma", self.focal_gamma, 0.0, 10.0)
        for name in ("coarse_weight", "fine_weight", "heat_weight", "block_weight"):
            require_range(f"loss.{name}", getattr(self, name), 0.0, 1e3)
        require_range("loss.tolerance", self.tolerance, 1e-4, 1.0)
        require_positive("loss.fine_samples", self.fine_samples)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW, its schedule, clipping and the average of the weights."""

    lr: float = 8e-3
    """Of a batch of `canonical_batch` pairs."""
    canonical_batch: int = 64
    """The learning rate is scaled by pairs a step / `canonical_batch`, warm-up by its inverse, as
    published; 0 takes `lr` and `warmup` as they are."""
    weight_decay: float = 0.1
    schedule: str = "multistep"
    """``multistep`` as published, ``cosine`` to 0, or ``trapezoid``: constant, then down to 0."""
    warmup: int = 1875
    """Steps of linear warm-up."""
    warmup_start: float = 0.1
    """Share of the learning rate at the first step."""
    milestones: tuple[int, ...] = (8, 12, 16, 20, 24)
    """Epochs after which ``multistep`` multiplies by `gamma`."""
    gamma: float = 0.5
    cooldown: float = 0.2
    """Share of the steps in which ``trapezoid`` goes down."""
    clip: float = 0.5
    """Largest norm of the gradient; 0 turns clipping off."""
    ema: float = 0.999
    """Decay of the averaged weights a step; 0 means that the average is the last weights."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        require_choice("optim.schedule", self.schedule, ("multistep", "cosine", "trapezoid"))
        require_range("optim.lr", self.lr, 1e-9, 10.0)
        require_range("optim.weight_decay", self.weight_decay, 0.0, 10.0)
        for name in ("warmup_start", "gamma", "cooldown"):
            require_range(f"optim.{name}", getattr(self, name), 0.0, 1.0)
        require_range("optim.ema", self.ema, 0.0, 0.99999)
        require_range("optim.clip", self.clip, 0.0, 1e6)
        for name in ("canonical_batch", "warmup"):
            require_at_least(f"optim.{name}", 0, getattr(self, name))
        if self.milestones:
            require_positive("optim.milestones", *self.milestones)


@dataclass(frozen=True)
class TrainerConfig:
    """How the steps are run and what is kept of them."""

    max_steps: int = -1
    """Optimiser steps, -1 for no limit."""
    max_epochs: int = -1
    max_minutes: float = 0.0
    """Wall-clock limit of this process; 0 for none."""
    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    """``auto`` (bf16 where the hardware has it), ``bf16-mixed`` or ``32-true``."""
    channels_last: bool = True
    threads: int = 0
    """CPU threads; 0 leaves the default."""
    accumulate: int = 1
    sync_batchnorm: bool = False
    log_every: int = 50
    checkpoint_minutes: float = 5.0
    """0 saves at the end only."""
    checkpoint_steps: int = 0
    """Also save every so many steps; 0 turns it off."""
    keep: int = 2
    """Checkpoints kept."""
    export_minutes: float = 15.0
    """Export of the averaged weights as safetensors; 0 exports at the end only."""
    validate_steps: int = 0
    """Steps between validations; 0 turns validation off."""
    overfit: bool = False
    """Train on the first batch alone."""
    progress: bool = True
    figures: int = 0
    """Pairs whose matches are drawn into the folder at every validation."""
    pose_pairs: str = ""
    """Folder with pairs_with_gt.txt whose pose AUC is logged at every validation."""

    def __post_init__(self) -> None:
        require_choice("trainer.precision", self.precision, ("auto", "bf16-mixed", "32-true"))
        require_choice("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu"))
        require_choice("trainer.strategy", self.strategy, ("auto", "ddp", "ddp_spawn"))
        for name in ("devices", "nodes", "accumulate", "log_every", "keep"):
            require_positive(f"trainer.{name}", getattr(self, name))
        for name in ("max_minutes", "checkpoint_minutes", "export_minutes"):
            require_range(f"trainer.{name}", getattr(self, name), 0.0, 1e7)
        for name, low in (
            ("max_steps", -1),
            ("max_epochs", -1),
            ("threads", 0),
            ("checkpoint_steps", 0),
            ("validate_steps", 0),
            ("figures", 0),
        ):
            require_at_least(f"trainer.{name}", low, getattr(self, name))
        for name in ("figures", "pose_pairs"):
            if getattr(self, name) and not self.validate_steps:
                expected = "none, or trainer.validate_steps above 0: they belong to validations"
                raise invalid(f"trainer.{name}", getattr(self, name), expected)


@dataclass(frozen=True)
class RunConfig:
    """One run of train.py, data excluded."""

    name: str = "outdoor"
    folder: str = "runs/outdoor"
    seed: int = 66
    resume: str = ""
    """A checkpoint, or ``auto`` for the newest one that is intact in `folder`."""
    init_weights: str = ""
    """Weights (safetensors) to start from, with a fresh optimiser."""
    model: MatcherConfig = field(default_factory=MatcherConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)

    def __post_init__(self) -> None:
        require_at_least("seed", 0, self.seed)
        if self.resume and self.init_weights:
            raise invalid("init_weights", self.init_weights, "empty when `resume` is given")
