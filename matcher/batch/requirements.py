"""What can be known before a collection is matched is checked before it is matched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from matcher.batch.image_names import Root, encode_name
from matcher.batch.manifest import shortened
from matcher.batch.options import CollectionOptions
from matcher.batch.pairs import PairList
from matcher.batch.progress import LOG
from matcher.errors import Code, UsageError, missing, require_extra
from matcher.files import require_writable

FAILURES = "failures.tsv"
TARGETS = {
    "none": (),
    "pack": ("packed.h5",),
    "hloc": ("features.h5", "matches.h5"),
    "colmap": ("colmap/database.db",),
    "colmap_text": ("colmap_text/matches.txt",),
    "gdal": (),
    "hugin": ("panorama.pto",),
    "verdicts": ("verdicts.csv",),
}
"""What each export writes."""


def require_apart(options: CollectionOptions) -> None:
    """Refuse an output inside or above a folder of images (E205): results among the images would
    be taken for images, or images for results."""
    output = os.path.realpath(options.output)
    folders = [f for f in (options.pairs, options.against) if f is not None and os.path.isdir(f)]
    for folder in folders:
        _require_apart(output, folder, _inside(output, os.path.realpath(folder)))
    if not os.path.isdir(options.pairs):
        folders.append(options.root or os.path.dirname(options.pairs) or ".")
    for folder in folders:
        _require_apart(output, folder, _inside(os.path.realpath(folder), output))


def require_images(
    pairs: PairList, absent: np.ndarray, options: CollectionOptions
) -> Iterator[str]:
    """Lines to warn with; then refuse missing images (E111), unless `skip_missing`.

    Args:
        absent: (n,) bool of the images.
    """
    alone = int((pairs.index[:, 0] == pairs.index[:, 1]).sum())
    if alone:
        yield f"warning   {alone} pairs of an image with itself"
    names = [pairs.names[i] for i in np.flatnonzero(absent)]
    yield from (f"missing   {encode_name(name)}" for name in names)
    if names and not options.skip_missing:
        what = f"{len(names)} of {len(pairs.names)} images are missing: {shortened(names)}"
        remedy = "skip_missing=true goes on without them"
        raise missing(options.pairs, what, remedy)


def require_tools(pairs: PairList, root: Root, options: CollectionOptions) -> None:
    """Refuse an engine that is not installed and an export that could not be written.

    Raises:
        UsageError: a package is not installed (E210), the export cannot hold a name (E209) or an
            image does not fit its camera (E201).
    """
    if options.engine == "ray":
        require_extra("ray", "ray", "engine=ray")
    if options.export == "hloc":
        from matcher.batch.export.hloc import require_hloc

        require_hloc(pairs)
    if options.export == "colmap":
        from matcher.batch.export.colmap import require_colmap

        require_colmap(pairs.names, root, options.pinhole, options.cameras)
    if options.export == "colmap_text":
        from matcher.batch.export.colmap_text import require_names

        require_names(pairs.names)
    if options.export == "gdal":
        require_extra("rasterio", "geo", "export=gdal")


def require_places(folder: Path, export: str) -> None:
    """Try all places that the run and its export will write to; errors as `require_writable`."""
    require_writable(folder / name for name in (LOG, FAILURES, *TARGETS[export]))


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _require_apart(output: str, folder: str, mixed: bool) -> None:
    if mixed:
        what = f"is inside or above {folder}, which holds the images"
        beside = os.path.join(os.path.dirname(os.path.realpath(folder)), "matches")
        remedy = f"choose a folder beside it, such as output={beside}"
        raise UsageError(Code.UNSAFE_VALUE, f"output={output}", what, remedy)
