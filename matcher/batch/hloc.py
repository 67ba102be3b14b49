"""Results as hloc (Hierarchical-Localization) keeps them: two HDF5 files.

| file | group | what |
|---|---|---|
| ``features.h5`` | name of the image, its slashes make groups | ``keypoints`` (K, 2) float32, ``score`` and ``scores`` (K,), ``image_size`` (2,) |
| ``matches.h5`` | ``a/b`` of the two names, their slashes become ``-`` | ``matches0`` (K0,) int32, -1 for none, ``matching_scores0`` (K0,) float16, and as matched ``keypoints0``, ``keypoints1`` (M, 2), ``scores`` (M,) float32 |

Pixels count from the centre of the top-left one, as everywhere in hloc. Older readers look for
``a_b`` instead of ``a/b``: both lead to the same group.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from matcher.batch.merge import Merged, PairMatches, merge_keypoints, pair_matches
from matcher.batch.names import Root
from matcher.batch.run import Run
from matcher.batch.sink import hdf5_published
from matcher.decoding import FORMATS
from matcher.errors import UsageError

FEATURES, MATCHES = "features.h5", "matches.h5"


def pair_key(name0: str, name1: str) -> str:
    """hloc's key of a pair."""
    return "/".join(name.replace("/", "-") for name in (name0, name1))


def export_hloc(run: Run, root: Root, side: float) -> list[Path]:
    """Write both files into the folder of a finished run.

    Args:
        run: the results.
        root: of the images.
        side: points of an image in a cell of so many pixels become one keypoint.

    Raises:
        UsageError: hloc's keys cannot tell two pairs apart or hold a name (E209).
        StorageError: a shard is damaged (E402) or a file cannot be written (E401).
    """
    found = list(pair_matches(run))
    names = run.pairs.names
    _require_keys(names, found)
    merged = merge_keypoints(found, len(names), side)
    paths = [run.folder / FEATURES, run.folder / MATCHES]
    with hdf5_published(paths[0]) as (file, sink):
        for image, name in enumerate(names):
            group = file.create_group(name)
            keypoints = group.create_dataset("keypoints", data=merged.keypoints[image])
            keypoints.attrs["uncertainty"] = side / 2
            group["score"] = merged.scores[image]
            group["scores"] = merged.scores[image]
            size = _image_size(root.path(name))
            if size is not None:
                group["image_size"] = np.array(size, np.int64)
            sink.check()
    with hdf5_published(paths[1]) as (file, sink):
        _write_matches(file, names, found, merged)
    return paths


def _write_matches(
    file: h5py.File, names: Sequence[str], found: Iterable[PairMatches], merged: Merged
) -> None:
    by_pair = dict(
        zip(merged.pairs, zip(merged.matches, merged.match_scores, strict=True), strict=True)
    )
    empty = np.zeros((0, 2), np.uint32), np.zeros(0, np.float32)
    for pair in found:
        index, scores = by_pair.get((pair.image0, pair.image1), empty)
        matches0 = np.full(len(merged.keypoints[pair.image0]), -1, np.int32)
        matching_scores0 = np.zeros(len(matches0), np.float16)
        matches0[index[:, 0]] = index[:, 1]
        matching_scores0[index[:, 0]] = scores
        key = pair_key(names[pair.image0], names[pair.image1])
        group = file.create_group(key)
        group["matches0"] = matches0
        group["matching_scores0"] = matching_scores0
        group["keypoints0"] = pair.keypoints0
        group["keypoints1"] = pair.keypoints1
        group["scores"] = pair.scores
        file[key.replace("/", "_")] = group


def _require_keys(names: Sequence[str], found: Sequence[PairMatches]) -> None:
    """Whether hloc's keys are unique and HDF5 can hold them."""
    for name in names:
        parts = name.split("/")
        if not all(parts) or {".", ".."} & set(parts) or not name.isprintable():
            remedy = "name images relative to root, without '.' and '..'"
            raise UsageError(209, name, "cannot be a key of hloc's files", remedy)
    taken: dict[str, tuple[str, str]] = {}
    for pair in found:
        both = names[pair.image0], names[pair.image1]
        for key in (pair_key(*both), pair_key(*both).replace("/", "_")):
            if taken.setdefault(key, both) != both:
                what = f"pairs {taken[key]} and {both} have the same key in hloc's files"
                raise UsageError(209, key, what, "rename an image")


def _image_size(path: str) -> tuple[int, int] | None:
    """(width, height) as stored, from the header; None where it cannot be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
