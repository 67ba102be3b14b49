"""A predictor by the name of its weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal, Unpack

import numpy as np
from torch import Tensor

from matcher.images.load import ImageSource
from matcher.network.fuse import fuse
from matcher.options import PredictorOptions, Settings, options_of
from matcher.predictor.predictor import Predictor
from matcher.runtime import find_device, own_settings
from matcher.structures import LocatedPoints
from matcher.weights.checkpoint import load_quality, load_safetensors
from matcher.weights.hub import LINEAR, is_bundled, resolve


@own_settings()
def load_matcher(
    name_or_path: str | os.PathLike[str] = "compact",
    options: PredictorOptions | None = None,
    *,
    coarsest_cells: int | None = None,
    routing: Literal["exact", "routed", "auto"] | None = None,
    **settings: Unpack[Settings],
) -> Predictor:
    """A predictor with weights by name or path.

    Args:
        name_or_path: ``compact``, which is bundled; the name of published weights, which are
            fetched once and kept; a ``.safetensors`` file; or an official checkpoint.
        coarsest_cells: most cells of the coarsest attention level; larger images get more levels
            (1,200 keeps the time of the attention in proportion to the pixels). None: 1,200 for
            bundled weights, for others as they were trained.
        routing: which pairs of cells are scored, see `CoarseConfig.routing`. None: ``auto`` for
            bundled weights, for others as they were trained, which is ``exact``.
        options, settings: see `Predictor`.

    Raises:
        UsageError: a value that cannot work, a missing file (E111) or an unknown name (E203).
        CheckpointError: weights that are refused or cannot be fetched (E501 to E509).
    """
    options = options_of(options, settings)
    find_device(options.device)
    name = os.fspath(name_or_path)
    asked = {"transformer.coarsest_cells": coarsest_cells, "coarse.routing": routing}
    path = resolve(name, offline=options.offline)
    # By the file: a collection, whose workers are given the path, matches as a pair does.
    overrides = {**LINEAR} if is_bundled(path) else {}
    overrides |= {option: value for option, value in asked.items() if value is not None}
    model = load_safetensors(path, overrides=overrides)
    fuse(model)
    predictor = Predictor(model, options)
    predictor.weights = path
    predictor.quality = load_quality(path)
    return predictor


def locate(
    image0: ImageSource,
    image1: ImageSource,
    points: np.ndarray | Tensor | Sequence[Sequence[float]],
    name_or_path: str | os.PathLike[str] = "compact",
    **settings: Unpack[Settings],
) -> LocatedPoints:
    """Where points of image 0 lie in image 1: `load_matcher` and `Predictor.locate` in one call.

    For many images load the matcher once.
    """
    return load_matcher(name_or_path, **settings).locate(image0, image1, points)
