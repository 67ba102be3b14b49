"""Checkpoints that survive a kill at any moment.

A checkpoint is written beside its place, flushed to the disk and renamed; its name holds the step
and the start of its SHA-256, so that the newest intact one can be told.
"""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from matcher.errors import CheckpointError, Code, StorageError, UsageError, missing
from matcher.files import make_folder, write_atomically

NAME = re.compile(r"step_(\d{8})-([0-9a-f]{16})\.ckpt")
WEIGHTS = "weights.safetensors"
"""The latest weights of a run, beside its checkpoints."""
BEST_WEIGHTS = "best.safetensors"
"""Those of its best validation."""
PARTS = {
    "callbacks", "global_step", "loops", "lr_schedulers", "optimizer_states",
    "pytorch-lightning_version", "state_dict",
}  # fmt: skip
"""What every checkpoint of a training holds."""


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint of plain values and tensors and drop all but the `keep` newest."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    path = folder / f"step_{step:08d}-{_digest(data)}.ckpt"
    make_folder(folder)
    write_atomically(path, data)
    for old in checkpoints(folder)[keep:]:
        if old != path:
            old.unlink(missing_ok=True)
    return path


def start_from(folder: Path, resume: str) -> Path | None:
    """The checkpoint that a run in `folder` goes on from; None starts afresh.

    The newest checkpoint of a folder is the one of the highest step, so a folder belongs to one
    line of steps. A run that would begin another in it is refused before anything is lost.

    Args:
        resume: a checkpoint, ``auto`` for the newest intact one of `folder`, or empty.

    Raises:
        UsageError: there is no such checkpoint (E111), or the folder belongs to another run (E204).
        StorageError: the checkpoint is damaged, or with ``auto`` all that there are.
        CheckpointError: it is none of train.py (E502).
    """
    existing = checkpoints(folder)
    weights = [name for name in (WEIGHTS, BEST_WEIGHTS) if (folder / name).exists()]
    if not existing and weights:
        what, remedy = f"holds {weights[0]} without a checkpoint", "name= starts anew elsewhere"
        raise UsageError(Code.UNUSABLE_WORD, folder, what, remedy)
    if resume == "auto":
        newest = newest_intact(folder)
        if existing and newest is None:
            what = f"none of its {len(existing)} checkpoints is intact, such as {existing[0].name}"
            remedy = "bring one back, or name= starts anew elsewhere"
            raise StorageError(Code.DAMAGED_RESULT, folder, what, remedy)
        return newest
    start = Path(resume) if resume else None
    if start is not None:
        load_training(start)
    if existing and (start is None or start.resolve() != existing[0].resolve()):
        what, remedy = f"holds {existing[0].name}", "resume=auto goes on from it, name= starts anew"
        raise UsageError(Code.UNUSABLE_WORD, folder, what, remedy)
    return start


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed left behind."""
    for part in folder.glob(".quadmatch-*.part"):
        part.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in `folder`, newest first."""
    paths = [p for p in folder.glob("step_*.ckpt") if NAME.fullmatch(p.name) and p.is_file()]
    return sorted(paths, key=lambda p: (p.name[:13], p.stat().st_mtime_ns), reverse=True)


def newest_intact(folder: Path) -> Path | None:
    """The newest checkpoint whose content matches its name."""
    for path in checkpoints(folder):
        match = NAME.fullmatch(path.name)
        with suppress(OSError):
            if match and _digest(path.read_bytes()) == match[2]:
                return path
    return None


def load_training(path: Path) -> dict[str, Any]:
    """The values of a checkpoint that a training goes on from.

    Raises:
        UsageError, StorageError: as `load_checkpoint`.
        CheckpointError: it is none of train.py (E502).
    """
    state = load_checkpoint(path)
    lacking = sorted(PARTS - state.keys()) if isinstance(state, dict) else sorted(PARTS)
    if lacking:
        what = f"is no checkpoint of train.py: it lacks {', '.join(lacking)}"
        remedy = "init_weights= takes weights (safetensors) of others"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what, remedy)
    return state


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The values of a checkpoint; only tensors and plain types are read.

    Raises:
        UsageError: there is no such file.
        StorageError: the content does not match the name, or cannot be read.
    """
    if not path.is_file():
        raise missing(path, "no such checkpoint")
    try:
        data = path.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise StorageError(Code.DAMAGED_RESULT, path, what) from error
    match = NAME.fullmatch(path.name)
    remedy = "resume=auto takes the newest intact one"
    damaged = StorageError(Code.DAMAGED_RESULT, path, "is damaged", remedy)
    if match and _digest(data) != match[2]:
        raise damaged
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # Torch raises whatever a damaged file leads it to.
        raise damaged from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
