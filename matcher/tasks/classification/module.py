"""Training of a classifier: the loss of a step, and what a validation says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from matcher.errors import CheckpointError, Code
from matcher.network.pyramid import Pyramid
from matcher.tasks.classification.structures import ImageBatch
from matcher.tasks.classification.training import ClassificationRunConfig
from matcher.training.export import PAIRS
from matcher.training.rated import RatedModule
from matcher.weights.pyramid import load_pyramid, save_pyramid


class ClassificationModule(RatedModule[Pyramid, ImageBatch]):
    """Trains a `Pyramid` on batches of `ImageBatch`; what others call pairs are images.

    Args:
        config: the run; its model has a class for each of the `labels`.
        labels: names of the classes, which the weights will tell.
        side: pixels of the square images, likewise.
    """

    task = "classification"
    counted = "images"
    shown = ("loss", "rate", "skipped")
    config: ClassificationRunConfig

    def __init__(
        self, config: ClassificationRunConfig, labels: Sequence[str], side: int, images_a_step: int
    ) -> None:
        super().__init__(config, config.optim, lambda: Pyramid(config.model), images_a_step, 0.0)
        self.labels, self.side = tuple(labels), side

    def terms(self, model: Pyramid, batch: ImageBatch) -> dict[str, Tensor]:
        smoothing = self.config.optim.smoothing
        loss = F.cross_entropy(model(batch.images), batch.classes, label_smoothing=smoothing)
        return {"cross_entropy": loss}

    def figures(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The loss without smoothing, and the shares whose class is among the best 1 and 5."""
        logits = self.average(batch.images)
        before = (logits > logits.gather(1, batch.classes[:, None])).sum(dim=1)
        tops = {f"top{n}": (before < n).float().mean() for n in (1, 5)}
        return {"loss": F.cross_entropy(logits, batch.classes), **tops}

    def read(self, path: Path) -> Pyramid:
        found = load_pyramid(path)
        self._require(found.labels or self.labels, path)
        return found.model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[self.task]["labels"] = list(self.labels)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        # Checkpoints of before 2026-11-29 do not name the classes.
        self._require(checkpoint[self.task].get("labels", self.labels), "resume")

    def _require(self, labels: Sequence[str], source: Path | str) -> None:
        """Names that changed would give their images to other outputs of the network (E502)."""
        if tuple(labels) != self.labels:
            theirs, ours = (", ".join(names[:20]) for names in (labels, self.labels))
            what = f"knows the classes {theirs}, and data.folder {ours}"
            remedy = "give a folder of the same classes"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, source, what, remedy)

    def export(self, path: Path, **facts: str) -> None:
        facts = {PAIRS: str(self.pairs_seen), **facts}
        save_pyramid(path, self.average, self.labels, self.side, **facts)
