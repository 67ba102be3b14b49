"""A folder for the downloads of each open page, whose name no client chooses."""

from __future__ import annotations

import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from threading import Lock

MOST_FOLDERS = 100
"""Open pages whose downloads are kept; the one unused for longest goes first."""


class PageFolders:
    """Folders of random names below `parent`, one for each session of a client.

    What a client sends as its session is a key and never part of a path.
    """

    def __init__(self, parent: Path, most: int = MOST_FOLDERS) -> None:
        self.parent = parent
        self.most = most
        self._folders: OrderedDict[str, Path] = OrderedDict()
        self._lock = Lock()

    def of(self, session: str | None) -> Path:
        """The folder of a session, made where it is not there yet; without one a new one."""
        with self._lock:
            folder = None if session is None else self._folders.pop(session, None)
            if folder is None or not folder.is_dir():
                self.parent.mkdir(parents=True, exist_ok=True)
                folder = Path(tempfile.mkdtemp(dir=self.parent))
            self._folders[folder.name if session is None else session] = folder
            while len(self._folders) > self.most:
                _remove(self._folders.popitem(last=False)[1])
            return folder

    def forget(self, session: str | None) -> None:
        """Delete the folder of a session; without one there is nothing to delete."""
        with self._lock:
            folder = None if session is None else self._folders.pop(session, None)
        if folder is not None:
            _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
