"""Benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from eval.benchmarks.colmap import colmap_pairs
from eval.benchmarks.folder import Benchmark, EvalPair, digest_of, read_pairs_with_gt
from eval.benchmarks.options import BenchmarkOptions, Kind
from eval.benchmarks.published import hpatches_pairs, megadepth_pairs, scannet_pairs
from eval.benchmarks.rendered import synthetic_pairs, warp_pairs
from eval.benchmarks.sizing import EXACT, Convention
from matcher.errors import Code, UsageError


def load_benchmark(
    options: BenchmarkOptions,
    *,
    cache: Path,
    limit: int | None = None,
    convention: Convention = EXACT,
) -> Benchmark:
    """The first `limit` pairs of a benchmark and the size at which they are matched.

    The folder `cache` is for benchmarks that are rendered. `UsageError`: a folder or file is
    missing (E111) or cannot be understood (E112).
    """
    pairs = READERS[options.kind](options, cache)
    if not pairs:
        raise UsageError(Code.UNREADABLE_LIST, options.root or options.name, "holds no pair")
    dataset = _folder_name(options) if options.kind == "pairs" else ""
    return Benchmark(
        options.name,
        dataset or options.name,
        pairs[:limit],
        options.sizing(convention),
        digest_of(pairs),
        {"note": options.note, "textures": textures(options)},
    )


def textures(options: BenchmarkOptions) -> str:
    """Where the texture of rendered images is from."""
    folder = _folder_name(options)
    if options.kind == "synthetic":
        return f"procedural and {folder}" if folder else "procedural"
    return (folder or "matplotlib and scikit-learn samples") if options.kind == "warps" else ""


def _folder_name(options: BenchmarkOptions) -> str:
    """The name of the folder of the data, empty where there is none."""
    return Path(options.root).resolve().name if options.root else ""


READERS: Mapping[Kind, Callable[[BenchmarkOptions, Path], tuple[EvalPair, ...]]] = {
    "pairs": lambda options, cache: read_pairs_with_gt(options.folder()),
    "scannet": scannet_pairs,
    "megadepth": megadepth_pairs,
    "hpatches": hpatches_pairs,
    "colmap": colmap_pairs,
    "synthetic": synthetic_pairs,
    "warps": warp_pairs,
}
