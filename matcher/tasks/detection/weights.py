"""Weights of a detector: the published torch files, and safetensors of this project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from matcher.errors import CheckpointError, Code
from matcher.tasks.detection.config import PUBLISHED, DetectorConfig
from matcher.tasks.detection.model import RetinaNet
from matcher.validation.checked import config_from_dict, entry_of
from matcher.weights.checkpoint import ANOTHER, fill, load_model, save_model
from matcher.weights.pyramid import load_pyramid
from matcher.weights.torch_archive import read_tensors

MODEL = "detector"


def save_detector(path: Path | str, model: RetinaNet, **about: str) -> None:
    """Write a detector, labels included; see `save_model`."""
    save_model(path, MODEL, model, **about)


def load_detector(path: Path | str) -> RetinaNet:
    """What `save_detector` wrote; errors as `load_model`."""
    built = load_model(path, MODEL, lambda v: RetinaNet(config_from_dict(DetectorConfig, v)))
    return built[0].requires_grad_(False)


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
        config = entry_of("model", config, PUBLISHED)
    tensors = read_tensors(path)
    with torch.device("meta"):
        model = RetinaNet(config)
    return fill(path, model, tensors, ANOTHER).requires_grad_(False)


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
