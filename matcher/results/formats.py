"""The file formats of results: named arrays and flat attributes to bytes and back.

Files from elsewhere are not trusted: nothing here unpickles, follows a link out of the file or
allocates what a header merely declares.
"""

from __future__ import annotations

import csv
import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

# The options of match.py ask which formats there are: HDF5 is loaded when a file is.
if TYPE_CHECKING:
    import h5py

MAX_FILE_BYTES = 2 * 1024**3
MAX_VALUES = 100_000_000
REFINED = {"converged": np.uint8, "correlation": np.float32, "quality": np.float32}
"""What the refinement tells of each match; absent where there was none."""
ARRAYS = ("keypoints0", "keypoints1", "scores", *REFINED, "inliers", "model", "T_0to1")
COLUMNS = {"score": "scores", **{name: name for name in REFINED}, "inlier": "inliers"}
"""Of a table after the four coordinates, and the arrays in them, as far as there are any."""
MODELS = ("model", "T_0to1")
FOREIGN_SUFFIXES = (".vrt", ".points", ".pto", ".ply")
"""Of files for other programs, which are not read back (`matcher.interop.pair_files`)."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

HDF5_VERSION = "v110"
"""The oldest file format whose metadata has checksums: without them damage can crash HDF5."""

BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    csv.Error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy, h5py and the readers of zip, JSON and CSV raise over a broken file, if an npz passed
`require_npz`."""

Arrays = dict[str, np.ndarray]
Attributes = dict[str, str | int | float]


class Format(NamedTuple):
    """A way to write and one to read; reading damaged bytes raises one of `BROKEN`."""

    encode: Callable[[Arrays, Attributes], bytes]
    decode: Callable[[bytes], tuple[Arrays, Attributes]]


def _to_hdf5(arrays: Arrays, attributes: Attributes) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=HDF5_VERSION) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, fletcher32=True if len(values) else None)
        for name, value in sorted(attributes.items()):
            file.attrs[name] = value
    return buffer.getvalue()


def _from_hdf5(data: bytes) -> tuple[Arrays, Attributes]:
    import h5py

    with h5py.File(io.BytesIO(data), "r") as file:
        arrays = {name: hdf5_array(file, name) for name in ARRAYS if name in file.keys()}
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
    # What a user noted in another form is not ours to keep.
    return arrays, {name: value for name, value in attributes.items() if value is not None}


def _plain(value: Any) -> str | int | float | None:
    """Text or a number; None for anything else."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else None


def hdf5_array(file: h5py.File, name: str) -> np.ndarray:
    """A dataset that lies in the file itself; links and storage elsewhere are refused, as are
    more values than `MAX_VALUES`."""
    import h5py

    safe = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fu":
        raise ValueError(f"{name} is not an array of numbers")
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} is stored in another file")
    if dataset.size is None or dataset.size > MAX_VALUES:
        raise ValueError(f"{name} declares {dataset.size} values")
    filters = dataset.id.get_create_plist()
    if any(filters.get_filter(i)[0] not in safe for i in range(filters.get_nfilters())):
        raise ValueError(f"{name} uses an unknown filter")
    return dataset[()]


def _to_npz(arrays: Arrays, attributes: Attributes) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, metadata=np.array(json.dumps(attributes)), **arrays)  # pyright: ignore
    return buffer.getvalue()


def require_npz(file: Path | io.BytesIO, limit: int = MAX_FILE_BYTES) -> None:
    """Whether a zip unpacks to at most `limit` bytes and is packed as NumPy packs.

    Raises:
        ValueError, or another of `BROKEN`: it is not.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > limit:
        raise ValueError(f"unpacks to more than {limit} bytes")
    # The decoders of other methods raise errors of their own.
    if {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("is packed by another method than NumPy's")


def _from_npz(data: bytes) -> tuple[Arrays, Attributes]:
    require_npz(io.BytesIO(data))
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in ARRAYS if name in file.files}
        return arrays, json.loads(str(file["metadata"]))


def _to_json(arrays: Arrays, attributes: Attributes) -> bytes:
    plain = {name: _short(values) for name, values in arrays.items()}
    return (json.dumps({**attributes, **plain}, indent=None) + "\n").encode()


def _from_json(data: bytes) -> tuple[Arrays, Attributes]:
    values = json.loads(data)
    if not isinstance(values, dict):
        raise ValueError("no JSON object")
    arrays = {name: np.array(values.pop(name)) for name in ARRAYS if name in values}
    for name in ("keypoints0", "keypoints1"):
        arrays[name] = arrays[name].reshape(-1, 2)
    return arrays, values


def _short(values: np.ndarray) -> list:
    """Nested lists with as many digits as a float32 needs to come back unchanged."""
    if values.dtype == np.float32:
        values = np.array([float(f"{v:.9g}") for v in values.ravel()]).reshape(values.shape)
    return values.tolist()


def _to_csv(arrays: Arrays, attributes: Attributes) -> bytes:
    """Comment lines ``# name: JSON value``, a header, one match a line."""
    models = {name: json.dumps(arrays[name].tolist()) for name in MODELS if name in arrays}
    notes = attributes | models
    out = io.StringIO()
    for name, value in notes.items():
        out.write(f"# {name}: {json.dumps(value)}\n")
    columns = _short(np.hstack([arrays["keypoints0"], arrays["keypoints1"]]).T)
    header = ["x0", "y0", "x1", "y1"]
    for title, name in COLUMNS.items():
        if name in arrays:
            header.append(title)
            columns.append(_short(arrays[name]))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue().encode()


def _from_csv(data: bytes) -> tuple[Arrays, Attributes]:
    # Editors and spreadsheets put a mark at the beginning, and empty lines at the end.
    lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    notes = [line[2:].partition(": ") for line in lines if line.startswith("# ")]
    attributes: Attributes = {name: json.loads(value) for name, _, value in notes}
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    table = np.array(rows, dtype=np.float64).reshape(-1, len(header))
    column = dict(zip(header, table.T, strict=True))
    arrays = {
        "keypoints0": np.stack([column["x0"], column["y0"]], axis=1),
        "keypoints1": np.stack([column["x1"], column["y1"]], axis=1),
        **{name: column[title] for title, name in COLUMNS.items() if title in column},
    }
    for name in MODELS:
        if name in attributes:
            arrays[name] = np.array(json.loads(str(attributes.pop(name))))
    return arrays, attributes


FORMATS = {
    ".h5": Format(_to_hdf5, _from_hdf5),
    ".hdf5": Format(_to_hdf5, _from_hdf5),
    ".npz": Format(_to_npz, _from_npz),
    ".csv": Format(_to_csv, _from_csv),
    ".json": Format(_to_json, _from_json),
}
