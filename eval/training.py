"""Training inside of a comparison: runs that go on where they stood, and their results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pytorch_lightning import LightningDataModule

from matcher.errors import Code, StorageError, UsageError, missing
from matcher.files import only_writer, sha256_of, write_atomically
from matcher.training import checkpointing
from matcher.training.base import TrainingModule
from matcher.training.trainer import fit_module
from matcher.validation.checked import Name, NotNegative

Rows = Annotated[tuple[Name, ...], Field(min_length=1, description="a list of names")]
Seeds = Annotated[tuple[NotNegative, ...], Field(min_length=1, description="a list of integers")]
BEGUN = "settings.json"
"""What a run in a folder was begun with."""


def train_on(module: TrainingModule, data: LightningDataModule, settings: dict[str, Any]) -> None:
    """Train to the last step of the run of `module`, from the newest checkpoint in its folder.

    Raises:
        UsageError: another process trains there (E207), or with other settings one began (E206).
        StorageError: none of the checkpoints there is intact (E402).
        InterruptedError: SIGINT or SIGTERM, its number in `errno`; a checkpoint is saved.
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
            raise InterruptedError(error.errno, "stopped; the same words go on") from error


def content_of_files(paths: Iterable[Path]) -> str:
    """A SHA-256 that changes with the names, the order or the content of files; a file that is not
    there is E111."""
    digest = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise missing(path)
        digest.update(f"{path.name}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def read_result(path: Path, settings: dict[str, Any], key: str) -> Any:
    """What `write_result` wrote under `key`; None where there is no file.

    Raises:
        UsageError: a run with other settings wrote it (E206).
        StorageError: it cannot be read (E402).
    """
    try:
        content = json.loads(path.read_text())
        found, stored = content[key], content["settings"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"not a readable result ({error})"
        raise StorageError(Code.DAMAGED_RESULT, path, what, "delete it") from error
    # What an earlier version did not note of its runs, such as "files", is not compared.
    if {**settings, **stored} != settings:
        what, remedy = "a run with other settings", "give another output folder"
        raise UsageError(Code.OTHER_SETTINGS, path, what, remedy)
    return found


def write_result(path: Path, settings: dict[str, Any], **content: Any) -> None:
    """Write what a run with `settings` came to."""
    write_atomically(path, json.dumps({"settings": settings, **content}).encode())
