"""Training of a classifier: one step, its optimizer, how its rate falls, and a loop that resumes.

Free of any framework: `ClassifierModule` serves a plain loop as well as a trainer.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from matcher.errors import Code, StorageError, UsageError
from matcher.files import write_atomically
from matcher.network.pyramid import Pyramid, PyramidConfig
from matcher.validation.checked import Positive, Share, checked, config_to_dict, invalid


@checked("classification.optim.")
class ClassificationOptimConfig:
    """AdamW whose rate rises, then falls along a cosine."""

    rate: Share = 1e-3
    """Highest learning rate."""
    last_rate: Share = 1e-5
    """Learning rate at the end, at most `rate`."""
    warmup: Share = 0.05
    """Share of all images over which the rate rises."""
    total_images: Positive = 37_876
    """Images after which the rate has fallen to `last_rate`, and training ends."""
    weight_decay: Share = 0.05
    """Weight decay of AdamW."""
    smoothing: Share = 0.1
    """Probability that is spread over all classes."""
    clip: Annotated[float, Field(ge=1e-6, le=1e6)] = 5.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        if self.last_rate > self.rate:
            raise invalid("classification.optim.last_rate", self.last_rate, f"at most {self.rate}")

    def rate_at(self, images: int) -> float:
        """The learning rate after that many images: a function of them alone."""
        rise = min(1.0, (images + 1) / max(1.0, self.warmup * self.total_images))
        fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, images / self.total_images))
        return rise * (self.last_rate + (self.rate - self.last_rate) * fall)


class ImageBatch(NamedTuple):
    """Images and their classes."""

    images: Tensor
    """(B, 3, H, W) as `matcher.images.imagenet.to_input` gives them"""
    classes: Tensor
    """(B,) int64"""


class ClassifierModule(nn.Module):
    """A pyramid with its loss and its optimizer."""

    def __init__(self, model: PyramidConfig, optim: ClassificationOptimConfig) -> None:
        super().__init__()
        self.model = Pyramid(model)
        self.optim = optim

    def terms(self, batch: ImageBatch) -> dict[str, Tensor]:
        """The terms of the loss of a batch."""
        logits = self.model(batch.images)
        smoothing = self.optim.smoothing
        return {"cross_entropy": F.cross_entropy(logits, batch.classes, label_smoothing=smoothing)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW; gains, shifts and single numbers do not decay."""
        decayed, kept = [], []
        for parameter in self.model.parameters():
            (decayed if parameter.ndim > 1 else kept).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.optim.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.optim.rate)

    def step(
        self, batch: ImageBatch, optimizer: torch.optim.Optimizer, images: int
    ) -> dict[str, float]:
        """One update on a batch after `images` images; a step that is not finite is left out.

        Returns:
            The terms, ``loss`` and ``gradient``, the norm before clipping.
        """
        for group in optimizer.param_groups:
            group["lr"] = self.optim.rate_at(images)
        terms = self.terms(batch)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip)
        if torch.isfinite(norm):
            optimizer.step()
        values = {name: term.detach() for name, term in terms.items()}
        values |= {"loss": loss.detach(), "gradient": norm}
        return {name: float(value) for name, value in values.items()}


def fit(
    module: ClassifierModule,
    batches: Callable[[int], Iterable[ImageBatch]],
    state: Path,
    *,
    save_every: int = 4096,
    report: Callable[[int, dict[str, float]], None] = lambda images, values: None,
) -> ClassifierModule:
    """Train until `ClassificationOptimConfig.total_images`; continues where `state` stands.

    Args:
        module: with its first weights.
        batches: from how many images on; without end.
        state: file that is written on the way and read on the next call.
        save_every: images between two writings.
        report: told the images seen and the values of each step.

    Raises:
        UsageError: `state` is that of other settings (E206).
        StorageError: it cannot be read (E402) or written (E401).
    """
    optimizer = module.configure_optimizers()
    images = _restore(state, module, optimizer) if state.is_file() else 0
    total, saved = module.optim.total_images, images
    module.train()
    for batch in batches(images) if images < total else ():
        values = module.step(batch, optimizer, images)
        images += len(batch.images)
        report(images, values)
        if images - saved >= save_every or images >= total:
            _save(state, module, optimizer, images)
            saved = images
        if images >= total:
            break
    return module.eval()


def _settings(module: ClassifierModule) -> str:
    parts = (module.model.config, module.optim)
    return json.dumps([config_to_dict(part) for part in parts], sort_keys=True)


def _save(
    path: Path, module: ClassifierModule, optimizer: torch.optim.Optimizer, images: int
) -> None:
    buffer = io.BytesIO()
    content = {
        "settings": _settings(module),
        "images": images,
        "model": module.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def _restore(path: Path, module: ClassifierModule, optimizer: torch.optim.Optimizer) -> int:
    """The images that the run at `path` has seen, whose state is taken over."""
    try:
        content = torch.load(path, weights_only=True)
        settings = content["settings"]
    except Exception as error:
        what = f"not a readable state of a training ({error})"
        raise StorageError(Code.DAMAGED_RESULT, path, what, "delete it to start anew") from error
    if settings != _settings(module):
        what, remedy = "a training with other settings", "give another folder or delete it"
        raise UsageError(Code.OTHER_SETTINGS, path, what, remedy)
    module.model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"])
    return int(content["images"])
