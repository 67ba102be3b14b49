"""Code whose change makes results kept from before worthless."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def source_digest(places: Iterable[Path]) -> str:
    """Changes with any of the Python files, and those of the folders, in `places`."""
    digest = hashlib.sha256()
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            name = path.relative_to(place.parent).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
