"""Turn LoFTR's indices into HDF5 without pickles: python -m data.convert_index FILE... [folder=OUT]

MegaDepth scene indices (bare pickles or npz with objects) and ScanNet tables are told apart by
their content. Each FILE becomes FILE with the suffix .h5, beside it or in OUT, and is preferred to
FILE from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from data.index import read_arrays, read_scene_index, write_arrays, write_scene_index
from matcher.errors import MatcherError, StorageError, UsageError


def convert(path: Path, folder: Path) -> Path:
    """Write the HDF5 form of an index into `folder` and return its path.

    Raises:
        UsageError, StorageError: `path` is missing or not an index.
    """
    target = folder / f"{path.stem}.h5"
    partial = target.with_suffix(".h5.part")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_scene_index(partial, read_scene_index(path))
    except StorageError as error:
        arrays = read_arrays(path)
        if "image_paths" in arrays or any(v.dtype.hasobject for v in arrays.values()):
            raise error
        write_arrays(partial, arrays)
    partial.replace(target)
    return target


def main(words: Sequence[str]) -> int:
    """The program; returns its exit code."""
    files = [Path(word) for word in words if not word.startswith("folder=")]
    folders = [Path(word.removeprefix("folder=")) for word in words if word.startswith("folder=")]
    try:
        if not files:
            raise UsageError(203, "FILE", "is missing", "python -m data.convert_index FILE...")
        for path in files:
            target = convert(path, folders[-1] if folders else path.parent)
            sys.stdout.write(f"{path} -> {target}\n")
    except MatcherError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
