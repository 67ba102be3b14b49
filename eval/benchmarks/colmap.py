"""Pairs of COLMAP models as a benchmark: poses of the models, pairs drawn by their overlap."""

from __future__ import annotations

from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np

from data.real.colmap import ColmapPairs
from data.real.colmap_model import Camera
from data.real.readers import fitted_intrinsics
from eval.benchmarks.folder import EvalPair
from eval.benchmarks.options import BenchmarkOptions
from matcher.errors import Code, UsageError, missing
from matcher.images.decode import stored_size

SEED = 0


def colmap_pairs(options: BenchmarkOptions, cache: Path) -> tuple[EvalPair, ...]:
    """`count` pairs, of each scene in turn until it has no more.

    A scene is a folder in the root with ``images``, ``sparse`` and, where overlaps are listed,
    ``pairs.txt`` (lines ``name0 name1 overlap``).

    Only pictures that a pattern of `options.pictures` names are used; a scene of which none is
    named is passed over. `ImageError`: a picture has not the proportions of its camera (E105).
    """
    root = options.folder()
    scenes = [folder.parent for folder in sorted(root.glob("*/sparse")) if folder.is_dir()]
    if not scenes:
        raise missing(root, "holds no SCENE/sparse", "give the folder of the scenes")
    found = [pairs for scene in scenes if (pairs := _scene(scene, options))]
    if not found:
        what = f"{', '.join(options.pictures)} with overlap {list(options.overlap)} leaves no pair"
        raise UsageError(Code.UNREADABLE_LIST, root, what)
    rng = np.random.default_rng(SEED)
    drawn = [[pairs[i] for i in rng.permutation(len(pairs))] for pairs in found]
    in_turn = chain.from_iterable(zip_longest(*drawn))
    return tuple(islice((pair for pair in in_turn if pair), options.count or None))


def _scene(folder: Path, options: BenchmarkOptions) -> list[EvalPair]:
    listed = folder / "pairs.txt"
    source = ColmapPairs(
        folder / "images",
        folder / "sparse",
        listed=listed if listed.is_file() else None,
        scene=folder.name,
        overlap=options.overlap,
    )
    used = np.any([source.named(pattern) for pattern in options.pictures], axis=0)
    chosen = source.pairs[used[source.pairs].all(axis=1)]
    images = {i: source.model.images[i] for i in np.unique(chosen).tolist()}
    K = {i: _intrinsics(source.folder / image.name, image.camera) for i, image in images.items()}
    pairs = []
    for i, j in chosen.tolist():
        first, second = images[i], images[j]
        pairs.append(
            EvalPair(
                f"{source.names[i]} {source.names[j]}",
                source.folder / first.name,
                source.folder / second.name,
                K0=K[i],
                K1=K[j],
                T_0to1=second.pose @ np.linalg.inv(first.pose),
            )
        )
    return pairs


def _intrinsics(path: Path, camera: Camera) -> np.ndarray:
    """(3, 3) in pixels of a picture as it is stored, which may have been scaled since; those of its
    camera where it cannot be read. `ImageError` as `fitted_intrinsics`."""
    size = stored_size(path)
    if size is None:
        return camera.K
    return fitted_intrinsics(camera.K, camera.size, (size[1], size[0]), path)
