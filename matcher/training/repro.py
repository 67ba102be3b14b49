"""Files that bring back one training step: weights, batch and seed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matcher.structures import ImagePair, PairGeometry


def save_step(
    path: Path, weights: dict[str, Tensor], pair: ImagePair, seed: int, config: dict[str, Any]
) -> None:
    """Write what `load_step` reads; plain types only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu() for k, v in weights.items()}
    torch.save({"weights": state, "pair": _plain(pair), "seed": seed, "config": config}, path)


def load_step(path: Path) -> tuple[dict[str, Tensor], ImagePair, int, dict[str, Any]]:
    """Weights, batch, seed and config of a saved step."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    values = dict(saved["pair"])
    if values["geometry"] is not None:
        values["geometry"] = PairGeometry(**values["geometry"])
    values["names"] = tuple((a, b) for a, b in values["names"])
    return saved["weights"], ImagePair(**values), saved["seed"], saved["config"]


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
