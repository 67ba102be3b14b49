"""Names of images: what they may hold, where they lead, how files spell them."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote_to_bytes

from matcher.errors import Code, UsageError

_ENCODED = re.compile("[%\x00-\x1f\x7f\udc80-\udcff]")


def encode_name(name: str) -> str:
    """`name` as UTF-8 text of one line, injectively; `decode_name` leads back.

    Percent signs, control characters and bytes that are not UTF-8 become ``%XX``.
    """
    return _ENCODED.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", name)


def decode_name(text: str) -> str:
    """The name that `encode_name` made `text` of."""
    return os.fsdecode(unquote_to_bytes(text)) if "%" in text else text


def plain_name(name: str) -> str:
    """`name` without what leads nowhere, as in ``./a.jpg`` and ``b//a.jpg``."""
    if "//" not in name and "./" not in name:
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/" * name.startswith("/") + "/".join(parts)


class Root:
    """The folder that names are relative to; `allow_outside` accepts names that lead out of it."""

    def __init__(self, folder: str, *, allow_outside: bool = False) -> None:
        self.folder = folder
        self.allow_outside = allow_outside
        self._real = os.path.realpath(folder)
        self._inside: dict[str, bool] = {}

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def status(self, name: str) -> os.stat_result | None:
        """That of the image file; None where there is no such file. A name that leads out of the
        folder, also by a link, is refused (E114)."""
        path = self.path(name)
        if not self.allow_outside and not self._contains(path):
            what, remedy = f"leads out of {self.folder}", "change root, or allow_outside_root=true"
            raise UsageError(Code.REFUSED_NAME, name, what, remedy)
        try:
            return os.stat(path)
        except (OSError, ValueError):
            return None

    def _contains(self, path: str) -> bool:
        folder = os.path.dirname(path)
        if folder not in self._inside:
            self._inside[folder] = self._leads_inside(folder)
        if os.path.basename(path) == ".." or os.path.islink(path):
            return self._leads_inside(path)
        return self._inside[folder]

    def _leads_inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(os.path.join(self._real, ""))
