"""Masks of the images of a collection: files of the same name in a folder of their own."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from matcher.batch.image_names import Root
from matcher.errors import missing


class Masks:
    """The masks in a folder; without a folder there are none.

    Raises:
        UsageError: there is no such folder (E111).
    """

    def __init__(self, folder: str | None, *, allow_outside: bool = False) -> None:
        if folder is not None and not os.path.isdir(folder):
            raise missing(folder, "no such folder", "masks= is a folder of gray images")
        self._root = None if folder is None else Root(folder, allow_outside=allow_outside)

    def path(self, name: str) -> str | None:
        """The mask of an image: of its name, its name and ``.png``, or with ``.png`` as its suffix;
        None where there is none."""
        if self._root is None:
            return None
        names = name, f"{name}.png", str(PurePosixPath(name).with_suffix(".png"))
        found = (each for each in names if self._root.status(each) is not None)
        return next((self._root.path(each) for each in found), None)
