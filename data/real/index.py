"""LoFTR's lists of pairs, read without running pickled code, and their HDF5 form.

A MegaDepth index comes as a bare pickle of a dict that is named ``.npz``, as an npz whose arrays
hold objects, or as the HDF5 file that `python -m data.real.convert_index` writes; a ScanNet index
as an npz of plain arrays or HDF5. Only the four names that NumPy arrays pickle to are resolved.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy._core import multiarray

from data.real.readers import require_file
from matcher.errors import Code, StorageError
from matcher.geometry.validity import usable_intrinsics, usable_pose
from matcher.results.formats import BROKEN, require_npz

T = TypeVar("T")

HDF5_MAGIC, ZIP_MAGIC = b"\x89HDF\r\n\x1a\n", b"PK"
MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
WHITELIST = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("multiarray", "_reconstruct"): multiarray._reconstruct,
    ("multiarray", "scalar"): multiarray.scalar,
}


@dataclass(frozen=True)
class SceneIndex:
    """A MegaDepth scene: N images, of which some are missing, and M pairs."""

    image_paths: tuple[str, ...]
    """Relative to the root; empty where missing."""
    depth_paths: tuple[str, ...]
    intrinsics: np.ndarray
    """(N, 3, 3), pixels of the stored image"""
    poses: np.ndarray
    """(N, 4, 4) world to camera"""
    pairs: np.ndarray
    """(M, 2) int64"""
    overlap: np.ndarray
    """(M,)"""


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and builtin containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        package = "multiarray" if module in MULTIARRAY else module
        if (package, name) not in WHITELIST:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return WHITELIST[package, name]


def read_scene_index(path: Path) -> SceneIndex:
    """A MegaDepth index in any of its three forms.

    Raises:
        UsageError: no such file.
        StorageError: not such an index, or a pickle that names more than arrays.
    """
    return read_index(path, _scene_index)


def read_scannet_index(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """(N, 4) int64 rows (scene, sub, frame 0, frame 1) and (N,) float32 overlap, None where the
    file holds none (the test file); errors are those of `read_scene_index`."""

    def parse(values: dict[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
        rows = np.asarray(values["name"]).astype(np.int64).reshape(-1, 4)
        score = values.get("score")
        return rows, None if score is None else np.asarray(score, np.float32).reshape(len(rows))

    return read_index(path, parse)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz or HDF5 file, such as ScanNet's ``intrinsics.npz``."""
    return read_index(path, lambda values: {k: np.asarray(v) for k, v in values.items()})


def as_hdf5(columns: dict[str, Any]) -> bytes:
    """A file without pickles of arrays and tuples of texts, such as the fields of `SceneIndex`."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in columns.items():
            if isinstance(values, tuple):
                file.create_dataset(name, data=list(values), dtype=h5py.string_dtype())
            else:
                file.create_dataset(name, data=values, compression="gzip" if values.ndim else None)
    return buffer.getvalue()


def read_index(path: Path, parse: Callable[[dict[str, Any]], T]) -> T:
    """What `parse` makes of the entries of an index.

    Raises:
        UsageError: no such file.
        StorageError: it cannot be read, or `parse` finds it broken (a `ValueError`, a `KeyError`
            and the like).
    """
    require_file(path, "index")
    try:
        return parse(_load(path))
    except (*BROKEN, pickle.UnpicklingError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is no usable index ({error})"
        raise StorageError(Code.DAMAGED_RESULT, path, what) from error


def _load(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if data.startswith(HDF5_MAGIC):
        with h5py.File(io.BytesIO(data), "r") as file:
            return {name: file[name][()] for name in file}  # pyright: ignore
    if data.startswith(ZIP_MAGIC):
        require_npz(io.BytesIO(data))
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {n.removesuffix(".npy"): archive.read(n) for n in archive.namelist()}
        return {name: _read_npy(member) for name, member in members.items()}
    values = ArrayUnpickler(io.BytesIO(data)).load()
    if not isinstance(values, dict):
        raise ValueError("the pickle holds no dict")
    return values


def _read_npy(data: bytes) -> Any:
    stream, npy = io.BytesIO(data), np.lib.format
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    _, _, dtype = headers[npy.read_magic(stream)](stream)
    if dtype.hasobject:
        return ArrayUnpickler(stream).load()
    return npy.read_array(io.BytesIO(data), allow_pickle=False)


def _scene_index(values: dict[str, Any]) -> SceneIndex:
    images, depths = (_texts(values[name]) for name in ("image_paths", "depth_paths"))
    if "pairs" in values:
        pairs, overlap = values["pairs"], values["overlap"]
    else:
        pairs, overlap = ([info[i] for info in values["pair_infos"]] for i in (0, 1))
    index = SceneIndex(
        images,
        depths,
        _stacked(values["intrinsics"], 3),
        _stacked(values["poses"], 4),
        np.asarray(pairs, np.int64).reshape(-1, 2),
        np.asarray(overlap, np.float64).reshape(-1),
    )
    counts = {len(images), len(depths), len(index.intrinsics), len(index.poses)}
    if len(counts) != 1 or len(index.pairs) != len(index.overlap):
        raise ValueError("its lists differ in length")
    if len(index.pairs) and not 0 <= index.pairs.min() <= index.pairs.max() < len(images):
        raise ValueError("a pair names an image beyond the list")
    used = np.unique(index.pairs)
    if any(not images[i] or not depths[i] for i in used):
        raise ValueError("a pair names an image that is missing")
    usable_intrinsics(index.intrinsics[used])
    usable_pose(index.poses[used])
    return index


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    decoded = (v.decode() if isinstance(v, bytes) else v for v in values)
    return tuple("" if v is None else str(v) for v in decoded)


def _stacked(values: Iterable[Any], n: int) -> np.ndarray:
    """(N, n, n), NaN where an entry is None."""
    missing = np.full((n, n), np.nan)
    rows = [missing if v is None else np.asarray(v, float).reshape(n, n) for v in values]
    return np.stack(rows) if rows else np.zeros((0, n, n))
