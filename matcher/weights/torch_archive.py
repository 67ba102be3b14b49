"""Read the weights of a torch checkpoint, a zip of one pickle and the raw bytes of its storages.

The pickle is read by `matcher.weights.unpickle`, which runs nothing. Only the storages of the state
dict are read, and each tensor is checked to lie inside its bytes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from matcher.errors import CheckpointError, Code, missing
from matcher.weights.unpickle import TensorView, unpickle_state_dict

MAX_FILE_BYTES = 2 * 2**30
MAX_PICKLE_BYTES = 16 * 2**20
MAX_EXPANSION = 20
"""Uncompressed over compressed size, above `FREE_BYTES`."""
FREE_BYTES = 64 * 2**20

FOREIGN = (
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "torch's format from before version 1.6"),
    (b"version https://git-lfs", "a git-lfs pointer instead of the file"),
    (b"<", "a web page or XML"),
)


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """The state dict of a torch checkpoint, as contiguous tensors on the CPU.

    The state dict is the entry ``state_dict`` of the saved dict (Lightning's layout) or ``model``
    (that of many classifiers), or else the dict itself.

    Raises:
        UsageError: there is no such file (E111).
        CheckpointError: not a torch zip checkpoint or damaged (E501), or larger than the limits
            of this module (E505).
    """
    path = Path(path)
    if not path.is_file():
        raise missing(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError(Code.LARGE_WEIGHTS, path, f"larger than {MAX_FILE_BYTES} bytes")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError(_describe_foreign(path))
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except OverflowError as error:
        raise CheckpointError(Code.LARGE_WEIGHTS, path, str(error)) from error
    except Exception as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
        what = f"not a readable torch checkpoint ({reason})"
        raise CheckpointError(Code.DAMAGED_WEIGHTS, path, what) from error


def _describe_foreign(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if head[257:262] == b"ustar":
        return "torch's tar format from before version 0.2; save it anew with a current torch"
    for start, name in FOREIGN:
        if head.startswith(start):
            return f"{name}; only zip checkpoints are read"
    return "an empty file" if not head else "not a zip file, or cut short"


def _read_archive(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    members = {info.filename: info for info in archive.infolist()}
    _check_members(archive, members)
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"{len(pickles)} entries named data.pkl instead of one")
    root = pickles[0].removesuffix("data.pkl")
    if members[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise OverflowError(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
    order = members.get(f"{root}byteorder")
    if order is not None and archive.read(order) != b"little":
        raise ValueError("it was saved on a big-endian machine")
    views = unpickle_state_dict(archive.read(pickles[0]))
    total = sum(view.numel * view.storage.dtype.itemsize for view in views.values())
    if total > MAX_FILE_BYTES:
        raise OverflowError(f"its tensors take {total} bytes")
    return _read_tensors(views, archive, members, root)


def _check_members(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> None:
    infos = archive.infolist()
    if len(members) != len(infos):
        raise ValueError("two entries of one name")
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"entry {info.filename!r} is neither stored nor deflated")
        if info.flag_bits & 1:
            raise ValueError(f"entry {info.filename!r} is encrypted")
    packed = sum(info.compress_size for info in infos)
    unpacked = sum(info.file_size for info in infos)
    if unpacked > min(MAX_FILE_BYTES, max(FREE_BYTES, MAX_EXPANSION * packed)):
        raise OverflowError(f"its {packed} bytes unpack to {unpacked}")


def _read_tensors(
    views: Mapping[str, TensorView],
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    root: str,
) -> dict[str, Tensor]:
    storages: dict[str, bytearray] = {}
    tensors = {}
    for name, view in views.items():
        storage = view.storage
        member = members.get(f"{root}data/{storage.key}")
        held = None if member is None else member.file_size
        if member is None or held != storage.numel * storage.dtype.itemsize:
            raise ValueError(f"{name[:80]!r}: storage of {held} bytes for {storage.numel} elements")
        if view.end > storage.numel:
            raise ValueError(f"{name[:80]!r} reaches beyond its storage")
        if view.numel == 0:
            tensors[name] = torch.empty(view.size, dtype=storage.dtype)
            continue
        if storage.key not in storages:
            storages[storage.key] = bytearray(archive.read(member))
        flat = torch.frombuffer(storages[storage.key], dtype=storage.dtype)
        strided = flat.as_strided(view.size, view.stride, view.offset)
        tensors[name] = strided.clone(memory_format=torch.contiguous_format)
    return tensors
