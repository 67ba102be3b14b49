"""Figures of a measurement as a file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matcher.files import replaced, write_atomically


def write_figures(path: str, figures: Mapping[str, Any]) -> str:
    """Write figures as JSON, null for what is no number, and return the line that tells of it.

    Raises:
        StorageError: the file cannot be written (E401).
    """
    told = f"written  {path}{replaced(path)}\n"
    text = json.dumps(_valid(figures), indent=1, allow_nan=False) + "\n"
    write_atomically(Path(path), text.encode())
    return told


def tell_score(options: Any, score: Any) -> None:
    """Print a score; write it too, with its options, to the file that they name.

    Raises:
        StorageError: the file cannot be written (E401).
    """
    sys.stdout.write(f"{score}\n")
    if options.output:
        report = {"options": asdict(options), "score": asdict(score)}
        sys.stdout.write(write_figures(options.output, report))


def _valid(value: Any) -> Any:
    """A value without NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: _valid(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_valid(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
