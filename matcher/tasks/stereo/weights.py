"""Weights of a stereo network: one safetensors file that says what it belongs to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from matcher.errors import CheckpointError, Code, UsageError
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.model import Stereo
from matcher.validation.checked import config_from_dict
from matcher.weights.checkpoint import Weights, read_weights, require_finite, write_weights

BUNDLED = Path(__file__).resolve().parents[2] / "weights" / "stereo-compact.safetensors"
MODEL = "stereo"


def save_stereo(path: str | Path, model: Stereo, **about: str) -> None:
    """Write a network and its configuration; `about` is added to the metadata.

    Raises:
        StorageError: it cannot be written (E401).
    """
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    metadata = {"model": MODEL, "config": json.dumps(asdict(model.config)), **about}
    write_weights(path, Weights(tensors, metadata))


def load_stereo(path: str | Path | None = None) -> Stereo:
    """The network of a weights file, ready to match; None takes the bundled one.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: damaged, of another model, or not fitting its own configuration.
    """
    if path is None and not BUNDLED.is_file():
        remedy = f"give weights=FILE, or put {BUNDLED.name} there"
        raise UsageError(Code.MISSING_FILE, BUNDLED, "there are no bundled stereo weights", remedy)
    path = Path(BUNDLED if path is None else path)
    tensors, metadata = read_weights(path)
    kind = metadata.get("model", "unknown")
    if kind != MODEL:
        raise CheckpointError(
            Code.WRONG_ARCHITECTURE, path, f"weights of the model {kind!r}", "give stereo weights"
        )
    try:
        model = Stereo(config_from_dict(StereoConfig, json.loads(metadata["config"])))
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise CheckpointError(
            Code.INVALID_CONFIGURATION, path, f"no usable configuration ({error})"
        ) from error
    require_finite(path, tensors)
    expected = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            what = "missing" if name not in tensors else "unknown"
            raise CheckpointError(Code.WRONG_ARCHITECTURE, path, f"tensor {name} is {what}")
        if tensors[name].shape != expected[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, not {tuple(expected[name].shape)}"
            raise CheckpointError(
                Code.WRONG_ARCHITECTURE, path, f"tensor {name} has shape {shapes}"
            )
    model.load_state_dict(tensors, strict=False)
    return model.eval().requires_grad_(False)
