"""A shard: the results of a fixed range of the list, in one file that is complete or absent.

| dataset | shape | what |
|---|---|---|
| ``status`` | (n,) uint16 | 0 ok, 1 no_match, 2 duplicate, else the number of the error |
| ``count`` | (n,) uint32 | matches of each pair |
| ``keypoints0``, ``keypoints1`` | (M, 2) float32 | pixels of the original images, pair by pair |
| ``scores`` | (M,) float32 | |
| ``converged`` | (M,) uint8 | whether the refinement found the position |
| ``correlation`` | (M,) float32 | of the pixels around both points |
| ``quality`` | (M,) float32 | how likely it is right |

Without refinement, and in runs of earlier versions, the last three are absent.

The file name holds the range's number, the beginning of its key, which stands for all that decides
the results, and the first half of the SHA-256 of its bytes. A draft is a shard of which some pairs
are pending: what an interrupted run had of it.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch

from matcher.errors import Code, StorageError
from matcher.results.formats import MAX_FILE_BYTES, REFINED, hdf5_array
from matcher.structures import Matches

SCHEMA = "quadmatch-shard/2"
OK, NO_MATCH, DUPLICATE, PENDING = 0, 1, 2, 3
MATCHES = ("keypoints0", "keypoints1", "scores")
DONE, DRAFT = ".h5", ".draft"
_FILE = re.compile(r"(\d{9})-([0-9a-f]{16})-[0-9a-f]{32}(\.h5|\.draft)")


class ShardFile(NamedTuple):
    """What the name of a file tells of the shard in it."""

    number: int
    key: str
    """The first 16 digits."""
    kind: str
    """`DONE` or `DRAFT`"""
    path: Path


def status_text(status: int) -> str:
    """ok, no_match, duplicate, pending or failed:E<code>."""
    known = {OK: "ok", NO_MATCH: "no_match", DUPLICATE: "duplicate", PENDING: "pending"}
    return known.get(int(status), f"failed:E{status}")


@dataclass(frozen=True)
class Shard:
    """Results of consecutive pairs."""

    status: np.ndarray
    """(n,) uint16"""
    count: np.ndarray
    """(n,) uint32"""
    keypoints0: np.ndarray
    """(M, 2) float32"""
    keypoints1: np.ndarray
    scores: np.ndarray
    """(M,) float32"""
    converged: np.ndarray | None = None
    """(M,) uint8; None: not refined"""
    correlation: np.ndarray | None = None
    """(M,) float32; None likewise"""
    quality: np.ndarray | None = None
    """(M,) float32; None likewise"""

    def __post_init__(self) -> None:
        n, m = len(self.status), len(self.scores)
        shapes = [getattr(self, name).shape for name in ("count", *MATCHES)]
        shapes += [values.shape for name in REFINED if (values := getattr(self, name)) is not None]
        if shapes[:4] != [(n,), (m, 2), (m, 2), (m,)] or int(self.count.sum()) != m:
            raise ValueError(f"{n} pairs and {m} matches do not fit {shapes}")
        if {(m,), *shapes[4:]} != {(m,)}:
            raise ValueError(f"{m} matches do not fit {shapes[4:]}")

    def __len__(self) -> int:
        return len(self.status)

    def results(self) -> list[Matches | int]:
        """The matches of each pair, or the status of one that has none."""
        ends = np.cumsum(self.count)
        out: list[Matches | int] = []
        for status, count, end in zip(
            self.status.tolist(), self.count.tolist(), ends.tolist(), strict=True
        ):
            part = slice(end - count, end)
            arrays = (self.keypoints0[part], self.keypoints1[part], self.scores[part])
            points0, points1, scores = map(torch.from_numpy, arrays)
            matches = Matches(
                points0,
                points1,
                scores,
                converged=self._refined("converged", part),
                correlation=self._refined("correlation", part),
                quality=self._refined("quality", part),
            )
            out.append(matches if status == OK else status)
        return out

    def _refined(self, name: str, part: slice) -> torch.Tensor | None:
        values = getattr(self, name)
        if values is None:
            return None
        return torch.from_numpy(values[part].astype(bool) if name == "converged" else values[part])

    @staticmethod
    def of(results: Sequence[Matches | int]) -> Shard:
        """Of the matches of each pair, or the status of one that has none."""
        matches = [Matches.empty() if isinstance(r, int) else r for r in results]
        status = [r if isinstance(r, int) else (OK if len(r) else NO_MATCH) for r in results]
        arrays = [m.numpy() for m in matches]
        keypoints0, keypoints1, scores = (
            np.concatenate([np.zeros(shape, np.float32), *values])
            for shape, values in zip(((0, 2), (0, 2), 0), zip(*arrays, strict=True), strict=True)
        )
        count = np.array([len(m) for m in matches], np.uint32)
        refined = [_joined(matches, name) for name in REFINED]
        return Shard(np.array(status, np.uint16), count, keypoints0, keypoints1, scores, *refined)


def _joined(matches: Sequence[Matches], name: str) -> np.ndarray | None:
    """(M,) values of all pairs; None where a pair with matches has none, or no pair has any."""
    values = [getattr(each, name) for each in matches if len(each)]
    if not values or any(each is None for each in values):
        return None
    return np.concatenate([each.cpu().numpy() for each in values]).astype(REFINED[name])


def encode_shard(shard: Shard, number: int, key: str) -> bytes:
    """The bytes of a shard file; `key` is the fingerprint of all that decides its results."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["schema"], file.attrs["number"], file.attrs["key"] = SCHEMA, number, key
        for name in ("status", "count", *MATCHES, *REFINED):
            values = getattr(shard, name)
            if values is None:
                continue
            file.create_dataset(name, data=values, fletcher32=True if len(values) else None)
    return buffer.getvalue()


def decode_shard(data: bytes, number: int, key: str, pairs: int) -> Shard:
    """The shard in `data`, checked.

    Raises:
        ValueError, KeyError, TypeError, OSError or RuntimeError: damaged, or of other pairs.
    """
    with h5py.File(io.BytesIO(data), "r") as file:
        origin = tuple(np.asarray(file.attrs[k]).item() for k in ("schema", "number", "key"))
        if origin != (SCHEMA, number, key):
            raise ValueError(f"is {origin}, not {(SCHEMA, number, key)}")
        arrays = [hdf5_array(file, name) for name in ("status", "count", *MATCHES)]
        refined = {name: hdf5_array(file, name) for name in REFINED if name in file}
        shard = Shard(*arrays, **refined)
    if len(shard) != pairs:
        raise ValueError(f"holds {len(shard)} pairs instead of {pairs}")
    return shard


def shard_name(data: bytes, number: int, key: str, kind: str = DONE) -> str:
    return f"{number:09d}-{key[:16]}-{hashlib.sha256(data).hexdigest()[:32]}{kind}"


def read_shard(path: Path, key: str, pairs: int) -> Shard:
    """The shard in a file; `StorageError` (E402) if it is damaged or of other pairs."""
    try:
        name = _FILE.fullmatch(path.name)
        if name is None or not path.is_file():
            raise ValueError("not the name of a shard, or no ordinary file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        data, number, kind = path.read_bytes(), int(name[1]), name[3]
        if shard_name(data, number, key, kind) != path.name:
            raise ValueError("its bytes do not have the SHA-256 of its name")
        shard = decode_shard(data, number, key, pairs)
        if kind == DONE and (shard.status == PENDING).any():
            raise ValueError("holds pairs that are not done")
        return shard
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        what, remedy = f"not a readable shard: {error}", "delete it and run again"
        raise StorageError(Code.DAMAGED_RESULT, path, what, remedy) from error


def find_shards(folder: Path, kind: str = DONE) -> list[ShardFile]:
    """The shard files of a folder in order; parts of a killed run do not count. A folder that is
    gone holds none."""
    try:
        found = [(_FILE.fullmatch(path.name), path) for path in sorted(folder.iterdir())]
    except (FileNotFoundError, NotADirectoryError):
        return []
    files = [ShardFile(int(name[1]), name[2], name[3], path) for name, path in found if name]
    return [file for file in files if file.kind == kind]
