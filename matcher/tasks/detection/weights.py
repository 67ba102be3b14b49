"""Weights of a detector: the published torch files, and safetensors of this project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from matcher.errors import CheckpointError, Code, UsageError
from matcher.tasks.detection.config import PUBLISHED, DetectorConfig
from matcher.tasks.detection.model import RetinaNet
from matcher.validation.checked import config_from_dict, invalid
from matcher.weights.checkpoint import Weights, misfits, read_weights, require_finite, write_weights
from matcher.weights.pyramid import load_pyramid
from matcher.weights.torch_archive import read_tensors

MODEL = "detector"


def save_detector(path: Path | str, model: RetinaNet, **about: str) -> None:
    """Write a detector and its configuration, labels included; `about` is metadata too.

    Raises:
        CheckpointError: the weights are not finite (E504).
        StorageError: it cannot be written (E401).
    """
    tensors = {n: t.detach().cpu().float().contiguous() for n, t in model.state_dict().items()}
    require_finite(Path(path), tensors)
    config = json.dumps(asdict(model.config), sort_keys=True)
    write_weights(path, Weights(tensors, {"model": MODEL, "config": config, **about}))


def load_detector(path: Path | str) -> RetinaNet:
    """What `save_detector` wrote, in evaluation mode.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: damaged (E501), of another model or not fitting its configuration (E502),
            not finite (E504), or without a configuration that works (E508).
    """
    path = Path(path)
    tensors, metadata = read_weights(path)
    kind = metadata.get("model", "matcher")
    if kind != MODEL:
        what = f"weights of the model {kind!r}"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, "give weights of a detector")
    try:
        config = config_from_dict(DetectorConfig, json.loads(metadata["config"]))
        with torch.device("meta"):
            model = RetinaNet(config)
    except (KeyError, TypeError, ValueError, RuntimeError, RecursionError, UsageError) as error:
        what = f"no usable configuration ({error})"
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, what) from error
    return _filled(path, model, tensors)


def load_published(path: Path | str, config: DetectorConfig | str) -> RetinaNet:
    """A detector in evaluation mode with the weights of a published torch file, strictly.

    Args:
        path: of a file with the names ``backbone.``, ``neck.`` and ``bbox_head.``.
        config: which one it is: a name of `PUBLISHED`, such as ``quadtree_b0_dense``.

    Raises:
        UsageError: no such file (E111) or name (E201).
        CheckpointError: unreadable (E501, E505), tensors that are missing, unexpected or of another
            shape, which it lists (E502), or not finite (E504).
    """
    path = Path(path)
    if isinstance(config, str):
        if config not in PUBLISHED:
            raise invalid("model", config, f"one of {', '.join(PUBLISHED)}")
        config = PUBLISHED[config]
    tensors = read_tensors(path)
    with torch.device("meta"):
        model = RetinaNet(config)
    return _filled(path, model, tensors)


def load_backbone(path: Path | str, model: RetinaNet) -> None:
    """Take the backbone of a detector from weights of a pyramid, such as a classifier's.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: as `load_pyramid`, or another architecture (E502).
    """
    source = load_pyramid(path).model
    ours = model.config.backbone
    if replace(source.config, classes=0, drop_path=ours.drop_path) != ours:
        what, remedy = "holds another pyramid", "set model.backbone= to match"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, remedy)
    source.head = None
    model.backbone.load_state_dict(source.state_dict())


def _filled(path: Path, model: RetinaNet, tensors: Mapping[str, Tensor]) -> RetinaNet:
    """A model that was built without memory, with exactly `tensors`."""
    if faults := misfits(model.state_dict(), tensors):
        remedy = "give the name or the file of another detector"
        what = "tensors " + "; ".join(faults)
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, remedy)
    require_finite(path, tensors)
    model.load_state_dict({name: t.float() for name, t in tensors.items()}, assign=True)
    return model.eval().requires_grad_(False)
