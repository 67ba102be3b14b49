"""What a run was started with, so that it is only ever continued with the same."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from matcher.batch.image_names import Root, decode_name, encode_name
from matcher.batch.pairs import PairList
from matcher.errors import Code, StorageError, UsageError
from matcher.results.formats import BROKEN, require_npz

SCHEMA = "quadmatch-run/1"
SHOWN = 10
LISTED = ("names", "index", "size", "changed")
MAX_LIST_BYTES = 2**35
Settings = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class ImageFiles:
    """Fingerprints of the image files: (n,) int64 bytes and time of change; -1 if missing."""

    size: np.ndarray
    changed: np.ndarray
    """nanoseconds"""

    @staticmethod
    def of(names: list[str], root: Root) -> ImageFiles:
        """Look at all files; a name that leads out of the root is refused (E114)."""
        statuses = [root.status(name) for name in names]
        found = [(s.st_size, s.st_mtime_ns) if s else (-1, -1) for s in statuses]
        return ImageFiles(*np.array(found, np.int64).reshape(-1, 2).T)

    @property
    def missing(self) -> np.ndarray:
        """(n,) bool"""
        return self.size < 0

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256(self.size.astype("<i8").tobytes())
        digest.update(self.changed.astype("<i8").tobytes())
        return digest.hexdigest()

    def differs(self, other: ImageFiles) -> np.ndarray:
        return (self.size != other.size) | (self.changed != other.changed)


@dataclass(frozen=True)
class Manifest:
    """Fingerprints of all that results depend on."""

    pairs: int
    pairs_sha256: str
    images_sha256: str
    shard_size: int
    settings: Settings
    """Version, fingerprints of weights and model, options that change results."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.encode()).hexdigest()

    def encode(self) -> bytes:
        return (json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True, indent=1)).encode()

    @staticmethod
    def read(path: Path) -> Manifest:
        """Read what `encode` gave; damage is a `StorageError` (E402)."""
        try:
            values = json.loads(path.read_bytes())
            if values.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            return Manifest(**values)
        except BROKEN as error:
            what = f"not a readable manifest: {error}"
            raise StorageError(Code.DAMAGED_RESULT, path, what) from error

    def require_same(self, now: Manifest, folder: Path, changed_images: list[str]) -> None:
        """Refuse to go on with other settings (E206), with what differs."""
        before, after = asdict(self), asdict(now)
        flat0 = {**before.pop("settings"), **before}
        flat1 = {**after.pop("settings"), **after}
        differences = [
            f"{name} was {flat0.get(name)!r} and is {flat1.get(name)!r}"
            for name in sorted({*flat0, *flat1})
            if flat0.get(name) != flat1.get(name) and name != "images_sha256"
        ]
        if changed_images:
            differences.append(f"{len(changed_images)} images changed: {shortened(changed_images)}")
        if differences:
            what = f"holds a run with other settings: {'; '.join(differences)}"
            remedy = "use the same ones or another output"
            raise UsageError(Code.OTHER_SETTINGS, folder, what, remedy)


def shortened(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def encode_list(pairs: PairList, images: ImageFiles) -> bytes:
    """Names, pairs and image fingerprints as the bytes of an npz file."""
    names = np.frombuffer("\n".join(map(encode_name, pairs.names)).encode(), np.uint8)
    buffer = io.BytesIO()
    size, changed = images.size, images.changed
    np.savez(buffer, names=names, index=pairs.index, size=size, changed=changed)
    return buffer.getvalue()


def read_list(path: Path) -> tuple[PairList, ImageFiles]:
    """Read what `encode_list` gave; damage is a `StorageError` (E402)."""
    try:
        require_npz(path, MAX_LIST_BYTES)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in LISTED}
        names = [decode_name(text) for text in arrays["names"].tobytes().decode().split("\n")]
        pairs = PairList(names, arrays["index"].astype(np.int32))
        if pairs.index.min() < 0 or pairs.index.max() >= len(names):
            raise ValueError("pairs of images that are not in the list")
        files = ImageFiles(arrays["size"].astype(np.int64), arrays["changed"].astype(np.int64))
        return pairs, files
    except BROKEN as error:
        raise StorageError(Code.DAMAGED_RESULT, path, f"not a readable list: {error}") from error
