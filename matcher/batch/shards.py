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

The file name holds the range's number and the first half of the SHA-256 of its bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from matcher.errors import Code, StorageError
from matcher.results.formats import MAX_FILE_BYTES, REFINED, hdf5_array
from matcher.structures import Matches

SCHEMA = "quadmatch-shard/1"
OK, NO_MATCH, DUPLICATE = 0, 1, 2
MATCHES = ("keypoints0", "keypoints1", "scores")
_FILE = re.compile(r"(\d{9})-[0-9a-f]{32}\.h5")


def status_text(status: int) -> str:
    """ok, no_match, duplicate or failed:E<code>."""
    known = {OK: "ok", NO_MATCH: "no_match", DUPLICATE: "duplicate"}
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


def encode_shard(shard: Shard, number: int, run: str) -> bytes:
    """The bytes of a shard file; `run` is the fingerprint of the run it belongs to."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["schema"], file.attrs["number"], file.attrs["run"] = SCHEMA, number, run
        for name in ("status", "count", *MATCHES, *REFINED):
            values = getattr(shard, name)
            if values is None:
                continue
            file.create_dataset(name, data=values, fletcher32=True if len(values) else None)
    return buffer.getvalue()


def decode_shard(data: bytes, number: int, run: str, pairs: int) -> Shard:
    """The shard in `data`, checked.

    Raises:
        ValueError, KeyError, TypeError, OSError or RuntimeError: damaged, or of another run.
    """
    with h5py.File(io.BytesIO(data), "r") as file:
        origin = tuple(np.asarray(file.attrs[k]).item() for k in ("schema", "number", "run"))
        if origin != (SCHEMA, number, run):
            raise ValueError(f"is {origin}, not {(SCHEMA, number, run)}")
        arrays = [hdf5_array(file, name) for name in ("status", "count", *MATCHES)]
        refined = {name: hdf5_array(file, name) for name in REFINED if name in file}
        shard = Shard(*arrays, **refined)
    if len(shard) != pairs:
        raise ValueError(f"holds {len(shard)} pairs instead of {pairs}")
    return shard


def shard_name(data: bytes, number: int) -> str:
    return f"{number:09d}-{hashlib.sha256(data).hexdigest()[:32]}.h5"


def read_shard(path: Path, run: str, pairs: int) -> Shard:
    """The shard in a file; `StorageError` (E402) if it is damaged or of another run."""
    try:
        name = _FILE.fullmatch(path.name)
        if name is None:
            raise ValueError("not the name of a shard")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
        if shard_name(data, int(name[1])) != path.name:
            raise ValueError("its bytes do not have the SHA-256 of its name")
        return decode_shard(data, int(name[1]), run, pairs)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        what, remedy = f"not a readable shard: {error}", "delete it and run again"
        raise StorageError(Code.DAMAGED_RESULT, path, what, remedy) from error


def find_shards(folder: Path) -> dict[int, Path]:
    """The shard files of a folder by number; parts of a killed run do not count."""
    found = ((_FILE.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
    return {int(name[1]): path for name, path in found if name}
