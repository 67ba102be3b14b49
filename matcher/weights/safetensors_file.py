"""The file format of weights: safetensors, within limits, one file for the same weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from matcher.errors import CheckpointError, Code, UsageError
from matcher.files import write_atomically
from matcher.weights.torch_archive import MAX_FILE_BYTES
from matcher.weights.unpickle import MAX_TENSORS

MAX_HEADER_BYTES = 10 * 2**20


class Weights(NamedTuple):
    """What a weights file holds."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_weights(path: Path | str, weights: Weights) -> None:
    """Publish `weights`: all of it or nothing.

    Raises:
        StorageError: the file cannot be written (E401).
    """
    write_atomically(path, _with_sorted_header(safetensors.torch.save(*weights)))


def read_weights(path: Path | str) -> Weights:
    """Tensors and metadata of a safetensors file within the limits, not otherwise judged.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: damaged (E501) or too large (E505).
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(Code.MISSING_FILE, path, "no such file")
    try:
        _require_limits(path)
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > MAX_TENSORS:
                raise OverflowError(f"{len(names)} tensors are more than {MAX_TENSORS}")
            tensors = {name: file.get_tensor(name) for name in names}
            return Weights(tensors, dict(file.metadata() or {}))
    except OverflowError as error:
        raise CheckpointError(Code.LARGE_WEIGHTS, path, str(error)) from error
    except Exception as error:
        raise CheckpointError(
            Code.DAMAGED_WEIGHTS, path, f"not a readable safetensors file ({error})"
        ) from error


def require_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not floats (E502) or not finite (E504)."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                Code.WRONG_ARCHITECTURE, path, f"tensor {name} is {tensor.dtype}, not a float"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                Code.WEIGHTS_NOT_FINITE, path, f"tensor {name} holds NaN or infinity"
            )


def _require_limits(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise OverflowError(f"{size} bytes are more than {MAX_FILE_BYTES}")
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8:
        raise ValueError(f"{size} bytes")
    header = struct.unpack("<Q", head)[0]
    if header > MAX_HEADER_BYTES:
        raise OverflowError(f"a header of {header} bytes is more than {MAX_HEADER_BYTES}")


def _with_sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its header in one order, which the library leaves open."""
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]
