"""Training inside of a comparison: runs that go on where they stood, and their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule

from matcher.errors import Code, StorageError, UsageError
from matcher.files import only_writer, write_atomically
from matcher.training import checkpointing
from matcher.training.base import TrainingModule
from matcher.training.trainer import fit_module

BEGUN = "settings.json"
"""What a run in a folder was begun with."""


def train_on(module: TrainingModule, data: LightningDataModule, settings: dict[str, Any]) -> None:
    """Train to the last step of the run of `module`, from the newest checkpoint in its folder.

    Raises:
        UsageError: another process trains there (E207), or with other settings one began (E206).
        StorageError: none of the checkpoints there is intact (E402).
        KeyboardInterrupt: SIGINT or SIGTERM; a checkpoint is saved.
    """
    run = module.config
    folder = Path(run.folder)
    with only_writer(folder, "wait for it, or give another output folder"):
        read_result(folder / BEGUN, settings, "settings")
        write_result(folder / BEGUN, settings)
        newest = checkpointing.start_from(folder, "auto")
        try:
            fit_module(run, module, data, run.trainer.max_steps, newest)
        except InterruptedError as error:
            raise KeyboardInterrupt from error


def read_result(path: Path, settings: dict[str, Any], key: str) -> Any:
    """What `write_result` wrote under `key`; None where there is no file.

    Raises:
        UsageError: a run with other settings wrote it (E206).
        StorageError: it cannot be read (E402).
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        found, stored = content[key], content["settings"]
    except (ValueError, KeyError, TypeError) as error:
        what = f"not a readable result ({error})"
        raise StorageError(Code.DAMAGED_RESULT, path, what, "delete it") from error
    if stored != settings:
        what, remedy = "a run with other settings", "give another output folder"
        raise UsageError(Code.OTHER_SETTINGS, path, what, remedy)
    return found


def write_result(path: Path, settings: dict[str, Any], **content: Any) -> None:
    """Write what a run with `settings` came to."""
    write_atomically(path, json.dumps({"settings": settings, **content}).encode())
