"""Weights of a stereo network: one safetensors file that says what it belongs to."""

from __future__ import annotations

from pathlib import Path

from matcher.errors import Code, UsageError
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.model import Stereo
from matcher.validation.checked import config_from_dict
from matcher.weights.checkpoint import load_model, save_model

BUNDLED = Path(__file__).resolve().parents[2] / "weights" / "stereo-compact.safetensors"
MODEL = "stereo"


def save_stereo(path: str | Path, model: Stereo, **about: str) -> None:
    """Write a network; see `save_model`."""
    save_model(path, MODEL, model, **about)


def load_stereo(path: str | Path | None = None) -> Stereo:
    """The network of a weights file, ready to match; None takes the bundled one.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: as `load_model`.
    """
    if path is None and not BUNDLED.is_file():
        remedy = f"give weights=FILE, or put {BUNDLED.name} there"
        raise UsageError(Code.MISSING_FILE, BUNDLED, "there are no bundled stereo weights", remedy)
    path = BUNDLED if path is None else path
    built = load_model(path, MODEL, lambda v: Stereo(config_from_dict(StereoConfig, v)))
    return built[0].requires_grad_(False)
