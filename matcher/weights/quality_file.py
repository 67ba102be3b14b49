"""The quality head of weights, in a file beside theirs that names them by their sha256."""

from __future__ import annotations

from pathlib import Path

from matcher.errors import CheckpointError, Code
from matcher.files import sha256_of
from matcher.network.quality import QualityHead
from matcher.weights.checkpoint import Weights, read_weights, require_finite, write_weights

KEY = "weights_sha256"


def quality_path(weights: Path) -> Path:
    """Such as ``compact.quality.safetensors`` for ``compact.safetensors``."""
    return weights.with_name(f"{weights.stem}.quality.safetensors")


def save_quality(head: QualityHead, path: Path, weights: Path) -> None:
    """Publish a head for the weights in a file (E401)."""
    tensors = {name: values.contiguous() for name, values in head.state_dict().items()}
    write_weights(path, Weights(tensors, {KEY: sha256_of(weights)}))


def load_quality(weights: Path) -> QualityHead | None:
    """The head of the weights in a file; None if there is none, or it was fitted to others.

    Raises:
        CheckpointError: it is damaged (E501), not finite (E504) or of other shapes (E502).
    """
    path = quality_path(weights)
    if not path.is_file():
        return None
    tensors, metadata = read_weights(path)
    if metadata.get(KEY) != sha256_of(weights):
        return None
    require_finite(path, tensors)
    head = QualityHead().float()
    try:
        head.load_state_dict(tensors)
    except RuntimeError as error:
        what = f"not a quality head ({error})"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what) from error
    return head.requires_grad_(False).eval()
