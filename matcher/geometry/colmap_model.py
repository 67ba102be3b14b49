"""Models of COLMAP, as pycolmap reads them, which never gets a file that is cut off."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from matcher.errors import Code, UsageError, require_extra

LEAST_BYTES = {"cameras": 48, "images": 73, "points3D": 51}
"""Of one entry in the files of a binary model, each of which begins with the number of entries."""


def load_model(folder: str | Path, purpose: str) -> Any:
    """A `pycolmap.Reconstruction` of a folder with a text or binary model.

    Raises:
        UsageError: pycolmap, which `purpose` needs, is not installed (E210), or the model is
            damaged (E112).
    """
    pycolmap = require_extra("pycolmap", "sfm", purpose)
    try:
        if (Path(folder) / "images.bin").is_file():
            require_whole(Path(folder))
        return pycolmap.Reconstruction(folder)
    except (OSError, ValueError, RuntimeError, struct.error) as error:
        what = f"is no COLMAP model: {error}"
        raise UsageError(Code.UNREADABLE_LIST, folder, what, "write it anew") from error


def require_whole(folder: Path) -> None:
    """Refuse files of a binary model that are too short for their numbers of entries (ValueError):
    pycolmap would read on, sometimes without end."""
    for name, least in LEAST_BYTES.items():
        path = folder / f"{name}.bin"
        with path.open("rb") as file:
            (count,) = struct.unpack("<Q", file.read(8))
        if path.stat().st_size < 8 + count * least:
            raise ValueError(f"{path.name} is cut off")
