"""Weights in and out of a training run, as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from matcher.config import MatcherConfig, config_from_dict, config_to_dict
from matcher.errors import CheckpointError, UsageError
from matcher.model import FeatureMatcher
from matcher.training.checkpointing import write_atomic


def export_weights(model: FeatureMatcher, path: Path, pairs_seen: int) -> None:
    """Write half-precision weights, with the configuration and the pairs seen as metadata."""
    state = {
        k: (v.half() if v.is_floating_point() else v).detach().cpu().contiguous()
        for k, v in model.state_dict().items()
    }
    metadata = {"config": json.dumps(config_to_dict(model.config)), "pairs_seen": str(pairs_seen)}
    write_atomic(path, save(state, metadata))


def load_weights(model: FeatureMatcher, path: Path) -> int:
    """Load weights of the same architecture into `model`; returns the pairs they have seen.

    Raises:
        UsageError: no such file.
        CheckpointError: not safetensors, another architecture, or a value that is not finite.
    """
    if not path.is_file():
        raise UsageError(111, path, "no such weights")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
    except SafetensorError as error:
        raise CheckpointError(501, path, f"not safetensors: {error}") from error
    if "config" in metadata:
        config = config_from_dict(MatcherConfig, json.loads(metadata["config"]))
        if (
            config.backbone != model.config.backbone
            or config.transformer != model.config.transformer
        ):
            raise CheckpointError(502, path, "holds another architecture", "check model=")
    bad = [k for k, v in state.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise CheckpointError(503, path, f"{bad[0]} is not finite")
    try:
        model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
        )
    except RuntimeError as error:
        raise CheckpointError(502, path, str(error).splitlines()[-1].strip()) from error
    return int(metadata.get("pairs_seen", "0"))
