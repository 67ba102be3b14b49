"""Results as hloc (Hierarchical-Localization) keeps them: two HDF5 files.

| file | group | what |
|---|---|---|
| ``features.h5`` | name of the image, its slashes make groups | ``keypoints`` (K, 2) float32, ``score`` and ``scores`` (K,), ``image_size`` (2,) |
| ``matches.h5`` | ``a/b`` of the two names, their slashes become ``-`` | ``matches0`` (K0,) int32, -1 for none, ``matching_scores0`` (K0,) float16, and as matched ``keypoints0``, ``keypoints1`` (M, 2), ``scores`` (M,) float32; with refine=photometric ``converged`` (M,) uint8, ``correlation``, ``quality`` (M,) float32 |

Pixels count from the center of the top-left one, as everywhere in hloc. Older readers look for
``a_b`` instead of ``a/b``: both lead to the same group.
"""  # noqa: E501

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from matcher.batch.export.keypoints import Merged, PairMatches, merged_keypoints, pair_matches
from matcher.batch.export.tracks import Load, refine_tracks
from matcher.batch.image_names import Root, encode_name
from matcher.batch.pairs import PairList
from matcher.batch.run import Run
from matcher.batch.shards import MATCHES as MATCHED
from matcher.errors import Code, UsageError
from matcher.files import hdf5_published
from matcher.images.decode import stored_size
from matcher.results.formats import REFINED

FEATURES, MATCHES = "features.h5", "matches.h5"
DATASETS = ("keypoints", "score", "scores", "image_size")
"""What the group of an image holds."""


def pair_key(name0: str, name1: str) -> str:
    """hloc's key of a pair."""
    return "/".join(name.replace("/", "-") for name in (name0, name1))


def export_hloc(
    run: Run, root: Root, side: float, converged_only: bool = False, load: Load | None = None
) -> list[Path]:
    """Write both files into the folder of a finished run; points of an image in a cell of `side`
    pixels become one keypoint. `converged_only` leaves out the other matches; `load` reads the
    images to refine the tracks, None leaves them.

    Raises:
        UsageError: hloc's keys cannot tell two pairs apart or hold a name (E209).
        StorageError: a shard is damaged (E402) or a file cannot be written (E401).
    """
    require_hloc(run.pairs)
    paths = [run.folder / FEATURES, run.folder / MATCHES]
    with merged_keypoints(run, side, converged_only) as merged:
        if load is not None:
            refine_tracks(
                merged, pair_matches(run, converged_only), load, placed_only=converged_only
            )
        with hdf5_published(paths[0]) as (file, disk):
            for image, name in enumerate(run.pairs.names):
                keypoints, scores = merged.keypoints(image)
                group = file.create_group(name)
                group.create_dataset("keypoints", data=keypoints).attrs["uncertainty"] = side / 2
                group["score"] = group["scores"] = scores
                size = stored_size(root.path(name))
                if size is not None:
                    group["image_size"] = np.array(size, np.int64)
                disk.check()
        with hdf5_published(paths[1]) as (file, disk):
            for pair in pair_matches(run, converged_only):
                key, other_key = _keys(run.pairs.names, pair.image0, pair.image1)
                file[other_key] = _write_pair(file.create_group(key), pair, merged)
                disk.check()
    return paths


def _write_pair(group: h5py.Group, pair: PairMatches, merged: Merged) -> h5py.Group:
    index, scores = merged.matches(pair)
    matches0 = np.full(merged.counts[pair.image0], -1, np.int32)
    matching_scores0 = np.zeros(len(matches0), np.float16)
    matches0[index[:, 0]] = index[:, 1]
    matching_scores0[index[:, 0]] = scores
    group["matches0"], group["matching_scores0"] = matches0, matching_scores0
    for name in (*MATCHED, *REFINED):
        values = getattr(pair, name)
        if values is not None:
            group[name] = values
    return group


def require_hloc(pairs: PairList) -> None:
    """Refuse names that HDF5 or hloc's keys cannot hold or tell apart (E209)."""
    names = pairs.names
    known = set(names)
    for name in names:
        parts = name.split("/")
        inside = parts[-1] in DATASETS and "/".join(parts[:-1]) in known
        if not all(parts) or {".", ".."} & set(parts) or not name.isprintable() or inside:
            what = "cannot be a key of hloc's files"
            remedy = "name images relative to root, without '.' and '..'"
            raise UsageError(Code.NAME_NOT_EXPORTABLE, encode_name(name), what, remedy)
    kept = pairs.index[pairs.first == np.arange(len(pairs))]
    # Hashes of a million keys are small; only keys whose hashes agree are compared as text.
    keys = (key for pair in kept.tolist() for key in _keys(names, *pair))
    hashes = np.fromiter(map(hash, keys), np.int64, 2 * len(kept)).reshape(-1, 2)
    _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    taken: dict[str, tuple[str, str]] = {}
    for number in np.flatnonzero((counts[inverse.reshape(-1, 2)] > 1).any(axis=1)):
        image0, image1 = kept[number].tolist()
        both = names[image0], names[image1]
        for key in _keys(names, image0, image1):
            if taken.setdefault(key, both) != both:
                what = f"pairs {taken[key]} and {both} have the same key in hloc's files"
                raise UsageError(Code.NAME_NOT_EXPORTABLE, key, what, "rename an image")


def _keys(names: list[str], image0: int, image1: int) -> tuple[str, str]:
    """Both spellings of the key of a pair."""
    key = pair_key(names[image0], names[image1])
    return key, key.replace("/", "_")
