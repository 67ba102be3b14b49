"""What a run was started with, so that it is only ever continued with the same."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from matcher.batch.fingerprints import BYTES, ImageFiles
from matcher.batch.image_names import decode_name, encode_name
from matcher.batch.pairs import PairList
from matcher.errors import Code, StorageError, UsageError
from matcher.results.formats import BROKEN, require_npz

SCHEMA = "quadmatch-run/2"
SHOWN = 10
WAY_BACK = "remove manifest.json and run the same words again; what is done is kept"
LISTED = ("names", "index", "digest")
MAX_LIST_BYTES = 2**35
MAX_SHARD_SIZE = 1000
Settings = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Manifest:
    """Fingerprints of all that results depend on."""

    pairs: int
    pairs_sha256: str
    images_sha256: str
    shard_size: int
    settings: Settings
    """Version, fingerprints of weights and model, options that change results."""

    @staticmethod
    def of(pairs: PairList, images: ImageFiles, shard_size: int, settings: Settings) -> Manifest:
        return Manifest(len(pairs), pairs.sha256, images.sha256, shard_size, settings)

    @property
    def list_name(self) -> str:
        """Name of the file of the list: a new list goes beside the old one until the manifest
        points at it."""
        both = f"{self.pairs_sha256} {self.images_sha256}"
        return f"pairs-{hashlib.sha256(both.encode()).hexdigest()[:16]}.npz"

    def encode(self) -> bytes:
        return (json.dumps({"schema": SCHEMA, **asdict(self)}, sort_keys=True, indent=1)).encode()

    @staticmethod
    def read(path: Path) -> Manifest:
        """Read what `encode` gave; damage is a `StorageError` (E402)."""
        try:
            values = json.loads(path.read_bytes())
            if values.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            manifest = Manifest(**values)
            if not 1 <= int(manifest.shard_size) <= MAX_SHARD_SIZE:
                raise ValueError(f"shard_size {manifest.shard_size}")
            dict(manifest.settings)
            return manifest
        except BROKEN as error:
            what = f"not a readable manifest: {error}"
            raise StorageError(Code.DAMAGED_RESULT, path, what, WAY_BACK) from error

    def require_same_settings(self, now: Manifest, folder: Path) -> None:
        """Refuse to go on with other settings (E206), with what differs."""
        before = {**self.settings, "shard_size": self.shard_size}
        after = {**now.settings, "shard_size": now.shard_size}
        differences = [
            f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]
        if differences:
            what = f"holds a run with other settings: {'; '.join(differences)}"
            remedy = "use the same ones or another output"
            raise UsageError(Code.OTHER_SETTINGS, folder, what, remedy)


def continued_list(before: PairList, now: PairList, *, extend: bool, folder: Path) -> PairList:
    """The list of a run that goes on: its own, and with `extend` also what is new in `now`.

    Raises:
        UsageError: `now` holds other pairs, and not `extend` (E206).
    """
    if before.sha256 == now.sha256:
        return before
    had = set(before.named())
    new = [pair for pair in dict.fromkeys(now.named()) if pair not in had]
    gone = len(had.difference(now.named()))
    if extend:
        return before.extended(new) if new else before
    if new or gone:
        what = f"holds a run of other pairs: {len(new)} are new, {gone} are gone"
        remedy = "extend=true adds the new ones; else use the same list or another output"
        raise UsageError(Code.OTHER_SETTINGS, folder, what, remedy)
    return before


def shortened(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def encode_list(pairs: PairList, images: ImageFiles) -> bytes:
    """Names, pairs and image fingerprints as the bytes of an npz file."""
    names = np.frombuffer("\n".join(map(encode_name, pairs.names)).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, names=names, index=pairs.index, digest=images.digest)
    return buffer.getvalue()


def read_list(path: Path) -> tuple[PairList, ImageFiles]:
    """Read what `encode_list` gave; damage is a `StorageError` (E402)."""
    try:
        if not path.is_file():
            raise ValueError("no such file")
        require_npz(path, MAX_LIST_BYTES)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in LISTED}
        names = [decode_name(text) for text in arrays["names"].tobytes().decode().split("\n")]
        pairs = PairList(names, arrays["index"].astype(np.int32))
        if pairs.index.min() < 0 or pairs.index.max() >= len(names):
            raise ValueError("pairs of images that are not in the list")
        digest = arrays["digest"].astype(np.uint8, copy=False)
        if digest.shape != (len(names), BYTES):
            raise ValueError(f"{len(names)} names and {digest.shape} fingerprints")
        return pairs, ImageFiles(digest)
    except BROKEN as error:
        what = f"not a readable list: {error}"
        raise StorageError(Code.DAMAGED_RESULT, path, what, WAY_BACK) from error
