"""How much room on the disk a run will take, about."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from matcher.batch.export.keypoints import BYTES_A_MATCH
from matcher.batch.image_names import Root
from matcher.batch.options import CollectionOptions
from matcher.batch.run import Run
from matcher.images.decode import stored_size

MATCHES_A_CELL = 0.4
"""Of pairs that overlap well, as measured on fountain-P11."""
CELL = 8
BYTES_A_SHARD = 6_000
SAMPLES = 32
EXPORT_SIZE = {
    "none": 0.0,
    "pack": 1.3,
    "hloc": 5.0,
    "colmap": 3.0,
    "colmap_text": 22.0,
    "gdal": 10.0,
    "hugin": 1.0,
    "verdicts": 0.1,
}
"""Most that an export and its scratch files take at a time, in sizes of the shards."""


def needed_bytes(run: Run, root: Root, options: CollectionOptions) -> int:
    """What the missing shards and the export will take, judged by the shards that are there, else
    by the sizes of some images."""
    done = [path.stat().st_size for path in run.done().values()]
    if done:
        whole = float(np.mean(done)) * run.shards
    else:
        matches = _matches(run, root, options) * len(run.pairs)
        whole = BYTES_A_SHARD * run.shards + BYTES_A_MATCH * matches
    return round(whole - sum(done) + EXPORT_SIZE[options.export] * whole)


def free_bytes(folder: Path) -> int:
    """Of the disk that holds `folder`."""
    return shutil.disk_usage(folder).free


def size_text(size: float) -> str:
    """Such as 1.2 GB."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _matches(run: Run, root: Root, options: CollectionOptions) -> float:
    """Matches of a pair."""
    names = run.pairs.names
    chosen = np.unique(np.linspace(0, len(names) - 1, SAMPLES).astype(int)).tolist()
    sizes = [size for i in chosen if (size := stored_size(root.path(names[i]))) is not None]
    cells = []
    for width, height in sizes:
        ratio = min(1.0, (options.max_side or np.inf) / max(width, height))
        cells.append(width * height * (ratio / CELL) ** 2)
    matches = MATCHES_A_CELL * float(np.mean(cells)) if cells else 0.0
    return matches if options.top_k is None else min(matches, options.top_k)
