"""Pairs of COLMAP models as a benchmark: poses of the models, pairs drawn by their overlap."""

from __future__ import annotations

from itertools import chain, islice, zip_longest
from pathlib import Path

import numpy as np

from data.real.colmap import ColmapPairs
from eval.benchmarks.folder import EvalPair
from eval.benchmarks.options import BenchmarkOptions
from matcher.errors import Code, UsageError, missing

SEED = 0


def colmap_pairs(options: BenchmarkOptions, cache: Path) -> tuple[EvalPair, ...]:
    """`count` pairs, of each scene in turn until it has no more.

    A scene is a folder in the root with ``images``, ``sparse`` and, where overlaps are listed,
    ``pairs.txt`` (lines ``name0 name1 overlap``).

    Only pictures that a pattern of `options.pictures` names are used; a scene of which none is
    named is passed over.
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
    pairs = []
    for i, j in source.pairs[used[source.pairs].all(axis=1)].tolist():
        first, second = source.model.images[i], source.model.images[j]
        pairs.append(
            EvalPair(
                f"{source.names[i]} {source.names[j]}",
                source.folder / first.name,
                source.folder / second.name,
                K0=first.camera.K,
                K1=second.camera.K,
                T_0to1=second.pose @ np.linalg.inv(first.pose),
            )
        )
    return pairs
