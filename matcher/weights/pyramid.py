"""Weights of a pyramid: the published torch files by family, and safetensors of this project."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from matcher.errors import CheckpointError, Code
from matcher.network.pyramid import NAMES, Pyramid, PyramidConfig, build_pyramid
from matcher.validation.checked import config_from_dict, invalid
from matcher.weights.checkpoint import ANOTHER, fill, load_model, save_model
from matcher.weights.convert import WRAPPERS
from matcher.weights.torch_archive import read_tensors

Family = Literal["classification", "detection", "segmentation"]
BACKBONE = "backbone."
BESIDE = ("bbox_head.", "decode_head.", "neck.", "auxiliary_head.", "rpn_head.", "roi_head.")
"""Beginnings of the names of what stands beside a backbone."""
MODEL = "pyramid"
PUBLISHED_SIDE = 224
"""Pixels of the square that the published classifiers see."""


class PublishedPyramid(NamedTuple):
    """What a published file holds of a pyramid."""

    family: Family
    tensors: dict[str, Tensor]
    """of the pyramid alone, by their names in it"""


class LabeledPyramid(NamedTuple):
    """A pyramid and what a file says about its use."""

    model: Pyramid
    labels: tuple[str, ...] = ()
    """names of its classes; none where the file does not tell"""
    side: int = PUBLISHED_SIDE
    """pixels of the square images that it has learned from"""


def read_published(path: Path | str) -> PublishedPyramid:
    """The tensors of a published file of any family; errors as `torch_archive.read_tensors`."""
    tensors = {re.sub(WRAPPERS, r"\1", name): t for name, t in read_tensors(path).items()}
    if not any(name.startswith(BACKBONE) for name in tensors):
        return PublishedPyramid("classification", tensors)
    segments = any(name.startswith("decode_head.") for name in tensors)
    family = "segmentation" if segments else "detection"
    kept = {n.removeprefix(BACKBONE): t for n, t in tensors.items() if not n.startswith(BESIDE)}
    return PublishedPyramid(family, kept)


def load_published(path: Path | str, config: PyramidConfig | str) -> Pyramid:
    """A pyramid in evaluation mode with the weights of a published torch file, strictly.

    Args:
        path: of a classifier (``{"model": ...}``), a detector or a segmenter (``{"state_dict":
            ...}``, of which the backbone is taken).
        config: which one it is: a name such as ``quadtree_b0``, or ``quadtree_b0_dense`` for
            detection and segmentation. Activation and number of keys stand in no file.

    Raises:
        UsageError: no such file (E111) or name (E201), or a name of the other family (E201).
        CheckpointError: unreadable (E501, E505), tensors that are missing, unexpected or of another
            shape, which it lists (E502), or not finite (E504).
    """
    path = Path(path)
    family, tensors = read_published(path)
    if isinstance(config, str) and config in NAMES:
        _require_family(config, family)
    with torch.device("meta"):
        model = build_pyramid(config)
    return fill(path, model, tensors, ANOTHER)


def save_pyramid(
    path: Path | str,
    model: Pyramid,
    labels: Sequence[str] = (),
    side: int = PUBLISHED_SIDE,
    **about: str,
) -> None:
    """Write a pyramid, names of its classes and the side of its images; see `save_model`."""
    about |= {"labels": json.dumps(list(labels)), "side": str(side)}
    save_model(path, MODEL, model, **about)


def load_pyramid(path: Path | str) -> LabeledPyramid:
    """What `save_pyramid` wrote, in evaluation mode; errors as `load_model`."""
    model, metadata = load_model(
        path, MODEL, lambda values: build_pyramid(config_from_dict(PyramidConfig, values))
    )
    try:
        labels = tuple(str(label) for label in json.loads(metadata.get("labels", "[]")))
        side = int(metadata.get("side", PUBLISHED_SIDE))
    except (TypeError, ValueError, RecursionError) as error:
        what = f"no usable configuration ({error})"
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, what) from error
    if side < 1:
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, f"images of {side} pixels")
    if labels and len(labels) != model.config.classes:
        what = f"{len(labels)} labels for {model.config.classes} classes"
        raise CheckpointError(Code.INVALID_CONFIGURATION, path, what)
    return LabeledPyramid(model, labels, side)


def _require_family(name: str, family: Family) -> None:
    dense = name.endswith("_dense")
    if dense == (family == "classification"):
        other = name.removesuffix("_dense") if dense else f"{name}_dense"
        raise invalid("model", name, f"{other} for weights of {family}")
