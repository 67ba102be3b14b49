"""LoFTR's indices as HDF5 without pickles: python -m data.real.convert_index FILE... [folder=OUT]

MegaDepth scene indices (bare pickles or npz with objects) and ScanNet tables are told apart by
their content. Each FILE becomes FILE with the suffix .h5, beside it or in OUT, and is preferred to
FILE from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data.real.index import arrays_as_hdf5, read_arrays, read_scene_index, scene_index_as_hdf5
from matcher.errors import MatcherError, StorageError, UsageError
from matcher.files import write_atomically


def convert(path: Path, folder: Path) -> Path:
    """Write the HDF5 form of an index into `folder`, all of it or nothing, and return its path.

    Raises:
        UsageError, StorageError: `path` is missing or not an index.
        StorageError: the file cannot be written (E401).
    """
    target = folder / f"{path.stem}.h5"
    data = as_hdf5(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(401, folder, f"cannot make the folder: {error.strerror}") from error
    write_atomically(target, data)
    return target


def as_hdf5(path: Path) -> bytes:
    try:
        return scene_index_as_hdf5(read_scene_index(path))
    except StorageError as error:
        arrays = read_arrays(path)
        if "image_paths" in arrays or any(v.dtype.hasobject for v in arrays.values()):
            raise error
        return arrays_as_hdf5(arrays)


def main(words: Sequence[str]) -> int:
    """The program; returns its exit code."""
    files = [Path(word) for word in words if not word.startswith("folder=")]
    folders = [Path(word.removeprefix("folder=")) for word in words if word.startswith("folder=")]
    try:
        if not files:
            raise UsageError(203, "FILE", "is missing", "python -m data.real.convert_index FILE...")
        for path in files:
            target = convert(path, folders[-1] if folders else path.parent)
            sys.stdout.write(f"{path} -> {target}\n")
    except MatcherError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
