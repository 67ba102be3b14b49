"""Weights in and out of a training run, as safetensors."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from matcher.errors import CheckpointError, Code, MatcherError
from matcher.network.model import FeatureMatcher
from matcher.weights.checkpoint import load_safetensors, read_weights, save_safetensors

PAIRS = "training_pairs"
AUC = "validation_auc"
LONGEST = 18
"""Digits of a number of pairs that a run can count on from."""


def export_weights(model: FeatureMatcher, path: Path, pairs_seen: int, **facts: str) -> None:
    """Publish the weights of `model` in half precision, with the pairs that trained them and other
    `facts` of the keys that `save_safetensors` allows."""
    save_safetensors(model, path, extra={PAIRS: str(pairs_seen), **facts})


def exported_auc(path: Path) -> float:
    """The pose AUC@10 that weights were exported with as the best ones; 0 where nothing tells."""
    try:
        return float(read_weights(path).metadata[AUC])
    except (MatcherError, KeyError, ValueError):
        return 0.0


def load_weights(model: FeatureMatcher, path: Path) -> int:
    """Load weights of the same architecture into `model`; returns the pairs they have seen.

    Raises:
        UsageError, CheckpointError: as `load_safetensors`, or the file holds another
            architecture.
    """
    source = load_safetensors(path)
    ours = model.config.backbone, model.config.transformer, model.config.fine
    same = ours == (source.config.backbone, source.config.transformer, source.config.fine)
    return take_over(model, source, same, path)


def take_over(model: nn.Module, source: nn.Module, same: bool, path: Path) -> int:
    """Give `model` what `source`, read from a file, holds; returns the pairs it has seen.

    Raises:
        CheckpointError: they are not the `same` architecture (E502).
    """
    if not same:
        what = "holds another architecture"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, "set model= to match")
    model.load_state_dict(source.state_dict())
    seen = read_weights(path).metadata.get(PAIRS, "0")
    return int(seen) if seen.isdecimal() and len(seen) <= LONGEST else 0
