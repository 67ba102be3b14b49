"""Weights on disk: safetensors with the configuration beside them, loaded strictly.

Nothing that a file holds is ever run: no pickle, no class named by a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from matcher.config import MatcherConfig, config_from_dict, config_to_dict, invalid
from matcher.errors import CheckpointError, Code, UsageError
from matcher.network.model import FeatureMatcher, build_matcher
from matcher.weights.safetensors_file import (
    Weights,
    read_weights,
    require_finite,
    write_weights,
)
from matcher.weights.selftest import TOLERANCE, largest_difference, readings

COUNTER = ".num_batches_tracked"
"""Counts of training batches, which nothing here reads: not saved, and ignored where given."""
METADATA = frozenset({"canary", "config", "source_sha256", "training_pairs"})
"""All that a file may say about its weights."""


def save_safetensors(
    model: FeatureMatcher,
    path: Path | str,
    *,
    half: bool = True,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Publish the weights and the configuration of `model`: all of it or nothing.

    The same weights give the same bytes.

    Args:
        model: its state is saved, the counters of its batch norms excepted.
        path: a ``.safetensors`` file.
        half: store matrices and convolutions in fp16; vectors stay fp32.
        extra: more metadata, of the keys in `METADATA`.

    Raises:
        UsageError: another suffix.
        CheckpointError: the weights are not finite (E504).
        StorageError: the file cannot be written (E401).
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise UsageError(Code.REFUSED_WORD, path, "weights are saved as .safetensors")
    unknown = set(extra or ()) - METADATA
    if unknown:
        raise ValueError(f"metadata {sorted(unknown)}; allowed: {sorted(METADATA)}")
    tensors = {
        name: _stored(tensor, half)
        for name, tensor in model.state_dict().items()
        if not name.endswith(COUNTER)
    }
    require_finite(path, tensors)
    stored = assemble(path, model.config, tensors, "")
    metadata = {
        "config": json.dumps(config_to_dict(model.config), sort_keys=True),
        "canary": json.dumps(readings(stored)),
        **(extra or {}),
    }
    write_weights(path, Weights(tensors, metadata))


def selftest(path: Path | str) -> float:
    """How far what the weights compute now is from what they computed when they were saved.

    Returns:
        The largest relative difference of the readings of `matcher.weights.selftest`.

    Raises:
        CheckpointError: more than `selftest.TOLERANCE`, or nothing to compare with
            (E509); else as `load_safetensors`.
    """
    path = Path(path)
    expected = _stored_readings(path)
    difference = largest_difference(readings(load_safetensors(path)), expected)
    if not difference <= TOLERANCE:
        remedy = "the file or the installation is damaged"
        raise CheckpointError(
            Code.FAILED_SELFTEST, path, f"its results differ by {difference:.2g}", remedy
        )
    return difference


def _stored_readings(path: Path) -> list[float]:
    try:
        return [float(value) for value in json.loads(read_weights(path).metadata["canary"])]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            Code.FAILED_SELFTEST, path, "holds nothing to test it with", "save it anew"
        ) from error


def load_safetensors(
    path: Path | str, *, overrides: Mapping[str, Any] | None = None
) -> FeatureMatcher:
    """A matcher in evaluation mode, on the CPU and in fp32.

    Args:
        path: what `save_safetensors` wrote.
        overrides: options to change, such as ``{"coarse.threshold": 0.1}``.

    Raises:
        UsageError: there is no such file (E111), or an override is wrong.
        CheckpointError: the file is damaged (E501), does not fit its configuration (E502), holds
            NaN or infinity (E504), is larger than the limits (E505) or has no valid
            configuration (E508).
    """
    path = Path(path)
    weights = read_weights(path)
    config = override(_stored_config(path, weights.metadata), overrides or {})
    return assemble(path, config, weights.tensors, "convert or train it anew")


def override(config: MatcherConfig, values: Mapping[str, Any]) -> MatcherConfig:
    """`config` with the options of the dotted names in `values` replaced.

    Raises:
        UsageError: an unknown option or a value that cannot work.
    """
    tree = config_to_dict(config)
    for name, value in values.items():
        group, _, option = name.partition(".")
        if not isinstance(tree.setdefault(group, {}), dict):
            raise invalid(group, tree[group], "a group of options")
        tree[group][option] = value
    return config_from_dict(MatcherConfig, tree)


def _stored_config(path: Path, metadata: Mapping[str, str]) -> MatcherConfig:
    try:
        return config_from_dict(MatcherConfig, json.loads(metadata["config"]))
    except KeyError:
        raise CheckpointError(
            Code.INVALID_CONFIGURATION, path, "it holds no configuration"
        ) from None
    except UsageError as error:
        raise CheckpointError(
            Code.INVALID_CONFIGURATION, path, f"option {error.subject}: {error.what}"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            Code.INVALID_CONFIGURATION, path, f"its configuration is damaged: {error}"
        ) from error


def assemble(
    path: Path, config: MatcherConfig, tensors: Mapping[str, Tensor], remedy: str
) -> FeatureMatcher:
    """A matcher in evaluation mode that holds exactly `tensors`; its own are never allocated.

    Args:
        path: of the file they come from, for the message of an error, as is `remedy`.

    Raises:
        CheckpointError: the tensors do not fit (E502), are not finite (E504), or no such model
            can be built (E508).
    """
    tensors = {name: t for name, t in tensors.items() if not name.endswith(COUNTER)}
    layers = sum(config.backbone.depths) + len(config.transformer.layers)
    layers += len(config.transformer.topks) + len(config.fine.layers)
    if layers > len(tensors):
        raise CheckpointError(
            Code.WRONG_ARCHITECTURE, path, f"{len(tensors)} tensors for {layers} layers", remedy
        )
    try:
        with torch.device("meta"):
            model = build_matcher(config)
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise CheckpointError(
            Code.INVALID_CONFIGURATION, path, f"its configuration cannot be built: {error}"
        ) from error
    expected = model.state_dict()
    counters = {name: t for name, t in expected.items() if name.endswith(COUNTER)}
    wanted = {name: tuple(t.shape) for name, t in expected.items() if name not in counters}
    _require_fit(path, wanted, {name: tuple(t.shape) for name, t in tensors.items()}, remedy)
    require_finite(path, tensors)
    state = {name: tensor.float() for name, tensor in tensors.items()}
    state |= {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in counters.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


def _require_fit(
    path: Path,
    wanted: Mapping[str, tuple[int, ...]],
    given: Mapping[str, tuple[int, ...]],
    remedy: str,
) -> None:
    faults = {
        "missing": sorted(set(wanted) - set(given)),
        "unexpected": sorted(n[:100] for n in set(given) - set(wanted)),
        "of another shape": [
            f"{name} {given[name]} for {wanted[name]}"
            for name in wanted
            if name in given and given[name] != wanted[name]
        ],
    }
    listed = [
        f"{len(names)} {fault}: {', '.join(names[:5])}" for fault, names in faults.items() if names
    ]
    if listed:
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, "tensors " + "; ".join(listed), remedy)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().float()
    fits = tensor.ndim > 1 and tensor.abs().amax() <= torch.finfo(torch.float16).max
    return (tensor.half() if half and fits else tensor).contiguous()
