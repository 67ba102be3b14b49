"""Weights by name: bundled ones, and published ones that are fetched, converted and cached.

Nothing is fetched unless `resolve` is called with the name of published weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock, Timeout

from matcher.errors import CheckpointError, Code, StorageError, UsageError, missing, unwritable
from matcher.files import sha256_of, write_atomically
from matcher.weights.convert import convert
from matcher.weights.download import download, require_sha256, set_aside

BUNDLED = {name: Path(__file__).parent / f"{name}.safetensors" for name in ("compact", "compact-1")}
"""`compact` and its earlier version, on which figures of earlier releases rest."""
LINEAR = MappingProxyType({"coarse.routing": "auto", "transformer.coarsest_cells": 1200})
"""How bundled weights are run, whatever they were saved with: in time in proportion to pixels."""
CONVERSION = 1
"""Raised when the names or the meaning of converted tensors change, which renews the cache."""
LOCK_SECONDS = 600
CHOOSE_CACHE = "set MATCHER_CACHE to a folder that can be written"

_RELEASES = "https://github.com/Tangshitao/QuadTreeAttention/releases/download/"
_QUADTREE = f"{_RELEASES}QuadTreeAttention_feature_match/"
_KORNIA = "https://huggingface.co/kornia/loftr/resolve/main/"
_CMP = "https://cmp.felk.cvut.cz/~mishkdmy/models/"


@dataclass(frozen=True)
class Published:
    """Weights that others published."""

    urls: tuple[str, ...]
    """Addresses of the same file, tried in turn."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Where their configuration differs from what their tensors imply."""


PUBLISHED: dict[str, Published] = {
    "outdoor": Published((f"{_QUADTREE}outdoor.ckpt",)),
    "indoor": Published((f"{_QUADTREE}indoor.ckpt",), {"transformer.topks": (32, 16, 16)}),
    "loftr_outdoor": Published((f"{_KORNIA}loftr_outdoor.ckpt", f"{_CMP}loftr_outdoor.ckpt")),
    "loftr_indoor": Published((f"{_KORNIA}loftr_indoor.ckpt", f"{_CMP}loftr_indoor.ckpt")),
    "loftr_indoor_new": Published(
        (f"{_KORNIA}loftr_indoor_ds_new.ckpt", f"{_CMP}loftr_indoor_ds_new.ckpt"),
        {"position.variant": "fixed"},
    ),
}


def resolve(name_or_path: str | Path, *, offline: bool = False) -> Path:
    """The safetensors file of weights, fetched and converted first where needed.

    Args:
        name_or_path: a bundled or a published name, a ``.safetensors`` file, or a torch
            checkpoint in the official layout, which is converted into the cache.
        offline: fail at once where something would have to be fetched; so does the environment
            variable MATCHER_OFFLINE.

    Raises:
        UsageError: there is no such name (E203) or file (E111).
        CheckpointError: refused (E501 to E505), not fetched (E506) or not in the cache while
            offline (E507).
        StorageError: the cache cannot be written (E401).
    """
    name = os.fspath(name_or_path)
    if name in BUNDLED:
        return _existing(BUNDLED[name])
    if name in PUBLISHED:
        flag = os.environ.get("MATCHER_OFFLINE", "").strip().lower()
        return _published(name, offline or flag not in ("", "0", "false", "no"))
    path = Path(name)
    if not path.suffix and path.name == name and not os.path.exists(path):
        known = (*BUNDLED, *PUBLISHED)
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, or a path"
        raise UsageError(Code.REFUSED_WORD, name, "no weights of this name", hint)
    _existing(path)
    return path if path.suffix == ".safetensors" else _converted_file(path)


def is_bundled(path: Path) -> bool:
    """Whether a file is one of `BUNDLED`, whatever its path."""
    return any(os.path.isfile(own) and os.path.samefile(path, own) for own in BUNDLED.values())


def cache_folder() -> Path:
    """Where fetched and converted weights are kept: MATCHER_CACHE, or ~/.cache/quadmatch.

    Raises:
        StorageError: it lies in a home folder that is not known (E401).
    """
    folder = os.environ.get("MATCHER_CACHE") or "~/.cache/quadmatch"
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        what = "the home folder is not known"
        raise StorageError(Code.UNWRITABLE, folder, what, CHOOSE_CACHE) from error


def _existing(path: Path) -> Path:
    # Not of `Path`: a name that is too long would be an error of its own.
    if not os.path.isfile(path):
        raise missing(path, "a folder, not a file" if os.path.isdir(path) else "no such file")
    return path


def _published(name: str, offline: bool) -> Path:
    source = cache_folder() / f"{name}.ckpt"
    ready = _ready(source, name)
    if ready is None and offline and not os.path.exists(source):
        remedy = "run once without offline, or give the path of a file"
        raise CheckpointError(Code.NOT_CACHED, name, f"not in {cache_folder()} and offline", remedy)
    return ready or _locked(source, lambda: _ready(source, name) or _prepare(source, name))


def _ready(source: Path, name: str) -> Path | None:
    pinned = _pin(source)
    return None if pinned is None else _intact(_cached(pinned, name))


def _prepare(source: Path, name: str) -> Path:
    """Fetch and convert. The hash of the first file that converts is pinned: it is required of
    every later one."""
    pinned = _pin(source)
    if os.path.exists(source):
        require_sha256(source, pinned)
    else:
        download(PUBLISHED[name].urls, source, sha256=pinned)
    actual = sha256_of(source)
    try:
        target = _convert(source, actual, name, PUBLISHED[name].options)
    except CheckpointError:
        if pinned is None:
            set_aside(source, source)
        raise
    write_atomically(_pin_file(source), actual.encode())
    return target


def _converted_file(source: Path) -> Path:
    """The converted weights of a checkpoint of the user."""
    actual = sha256_of(source)
    target = _cached(actual, "inferred")
    return _intact(target) or _locked(
        target, lambda: _intact(target) or _convert(source, actual, "inferred", {})
    )


def _convert(source: Path, sha256: str, kind: str, options: Mapping[str, Any]) -> Path:
    target = _cached(sha256, kind)
    convert(source, target, overrides=options)
    if sha256_of(source) != sha256:
        what = "was replaced while it was converted"
        raise CheckpointError(Code.WRONG_HASH, source, what, "run again")
    write_atomically(_pin_file(target), sha256_of(target).encode())
    return target


def _cached(sha256: str, kind: str) -> Path:
    return cache_folder() / f"{kind}-{sha256}-{CONVERSION}.safetensors"


def _intact(target: Path) -> Path | None:
    """`target` if it is complete; refused (E503) if it changed since it was written."""
    pinned = _pin(target)
    if pinned is None or not os.path.exists(target):
        return None
    require_sha256(target, pinned)
    return target


def _pin_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _pin(path: Path) -> str | None:
    if not os.path.exists(_pin_file(path)):
        return None
    try:
        return _pin_file(path).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        what = f"cannot read: {error}"
        raise StorageError(Code.DAMAGED_RESULT, _pin_file(path), what, "delete it") from error


def _locked(path: Path, make: Callable[[], Path]) -> Path:
    """`make()`, by one process at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
            return make()
    except Timeout as error:
        what = "another process holds its lock"
        raise StorageError(Code.LOCKED, path, what, "wait for it") from error
    except OSError as error:
        raise unwritable(path.parent, error, CHOOSE_CACHE) from error
