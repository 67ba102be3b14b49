"""LoFTR's indices as HDF5 without pickles: python -m data.real.convert_index FILE... [folder=OUT]

MegaDepth scene indices (bare pickles or npz with objects) and ScanNet tables are told apart by
their content. Each FILE becomes FILE with the suffix .h5, beside it or in OUT, and is preferred to
FILE from then on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from data.real.index import as_hdf5, read_arrays, read_scene_index
from matcher.errors import Code, StorageError, UsageError
from matcher.files import make_folder, write_atomically
from matcher.terminal.program import program
from matcher.validation.words import key_values


def convert(path: Path, folder: Path) -> Path:
    """Write the HDF5 form of an index into `folder`, all of it or nothing, and return its path.

    Raises:
        UsageError, StorageError: `path` is no index, or the file cannot be written (E401).
    """
    target = folder / f"{path.stem}.h5"
    try:
        columns = vars(read_scene_index(path))
    except StorageError:
        columns = read_arrays(path)
        if "image_paths" in columns or any(v.dtype.hasobject for v in columns.values()):
            raise
    data = as_hdf5(columns)
    make_folder(folder)
    write_atomically(target, data)
    return target


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    words = key_values(words)
    files = [Path(word) for word in words if not word.startswith("folder=")]
    folders = [Path(word.removeprefix("folder=")) for word in words if word.startswith("folder=")]
    if not files:
        raise UsageError(Code.REFUSED_WORD, "FILE", "is missing", "name the indices")
    for path in files:
        target = convert(path, folders[-1] if folders else path.parent)
        sys.stdout.write(f"{path} -> {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
