"""All results of a finished run in one file, and the check of a run.

| dataset | shape | what |
|---|---|---|
| ``names`` | bytes | names of the images, one a line, ``%XX`` for what no line can hold |
| ``pairs`` | (N, 2) uint32 | images of each pair |
| ``status`` | (N,) uint16 | 0 ok, 1 no_match, 2 duplicate, else the number of the error |
| ``first`` | (N,) uint32 | the pair itself; of a duplicate the pair of the same images |
| ``start`` | (N + 1,) uint64 | matches of pair i are start[i] to start[i + 1] |
| ``keypoints0``, ``keypoints1``, ``scores`` | (M, 2), (M, 2), (M,) float32 | as in a shard |
| ``converged``, ``correlation``, ``quality`` | (M,) | as in a shard, if it holds them |

The same results give the same bytes: nothing in the file tells when, where or in how many
attempts they came about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from matcher.batch.image_names import encode_name
from matcher.batch.run import Run
from matcher.batch.shards import MATCHES
from matcher.errors import StorageError
from matcher.files import hdf5_published
from matcher.results.formats import REFINED

SCHEMA = "quadmatch-packed/1"
CHUNK = 65_536


def pack(run: Run, path: Path) -> None:
    """Write all results of a finished run into one HDF5 file; raises as `Run.read_all` and
    `hdf5_published`."""
    with hdf5_published(path) as (file, disk):
        file.attrs["schema"] = SCHEMA
        file.attrs["manifest"] = run.manifest.encode().decode()
        for name in MATCHES:
            _create(file, name, np.float32)
        status, count = [np.zeros(0, np.uint16)], [np.zeros(0, np.uint32)]
        for _, shard in run.read_all():
            status.append(shard.status)
            count.append(shard.count)
            for name in (*MATCHES, *REFINED):
                _append(file, name, getattr(shard, name))
            disk.check()
        start = np.concatenate([[0], np.cumsum(np.concatenate(count), dtype=np.uint64)])
        names = "\n".join(map(encode_name, run.pairs.names)).encode()
        for name, values in (
            ("names", np.frombuffer(names, np.uint8)),
            ("pairs", run.pairs.index.astype(np.uint32)),
            ("status", np.concatenate(status)),
            ("first", run.pairs.first.astype(np.uint32)),
            ("start", start.astype(np.uint64)),
        ):
            file.create_dataset(name, data=values, chunks=True, fletcher32=True)


def verify(run: Run) -> list[StorageError]:
    """Read every shard that is there; what is wrong with each damaged one."""
    damaged = []
    for number, path in run.done().items():
        try:
            run.read(number, path)
        except StorageError as error:
            damaged.append(error)
    return damaged


def outcome(run: Run) -> np.ndarray:
    """(N,) uint16 status of every pair of a finished run."""
    return np.concatenate([shard.status for _, shard in run.read_all()])


def _create(file: h5py.File, name: str, dtype: Any) -> None:
    tail = () if name not in ("keypoints0", "keypoints1") else (2,)
    how = {"maxshape": (None, *tail), "chunks": (CHUNK, *tail), "fletcher32": True}
    file.create_dataset(name, (0, *tail), dtype, **how)


def _append(file: h5py.File, name: str, values: np.ndarray | None) -> None:
    if values is None or not len(values):
        return
    if name not in file:
        _create(file, name, values.dtype)
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        return
    before = len(dataset)
    dataset.resize(before + len(values), axis=0)
    dataset[before:] = values
