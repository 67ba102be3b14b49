"""A collection from its options to results: what `match.py pairs=...` does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from matcher.batch.disk import free_bytes, needed_bytes, size_text
from matcher.batch.export.packed import outcome, pack, verify
from matcher.batch.image_names import Root, encode_name
from matcher.batch.manifest import ImageFiles, Manifest, shortened
from matcher.batch.options import CollectionOptions
from matcher.batch.pairs import PairList, find_pairs
from matcher.batch.progress import Progress, warnings_noted
from matcher.batch.run import Run, locked, open_run, start_run
from matcher.batch.shards import DUPLICATE, Shard, status_text
from matcher.batch.worker import build_shard_matcher, run_local
from matcher.errors import missing
from matcher.files import sha256_of, write_atomically
from matcher.weights.hub import resolve

Tell = Callable[[str], None]
PACKED, FAILURES, LOG = "packed.h5", "failures.tsv", "run.log"
SHOWN_FAILURES = 10


def match_collection(options: CollectionOptions, *, version: str, tell: Tell, warn: Tell) -> int:
    """Match a collection, or go on with it, and export the results.

    `tell` takes lines about what was done, `warn` those about what is odd. Returns the exit code:
    3 if pairs failed, else 0.
    """
    pairs, folder = find_pairs(
        options.pairs,
        against=options.against,
        select=options.select,
        window=options.window,
        root=options.root,
    )
    root = Root(folder, allow_outside=options.allow_outside_root)
    images = ImageFiles.of(pairs.names, root)
    require_images(pairs, images, options, warn)
    duplicates = int((pairs.first < np.arange(len(pairs))).sum())
    tell(f"pairs     {len(pairs)} of {len(pairs.names)} images, {duplicates} duplicates")
    weights = resolve(options.weights, offline=options.offline)
    settings = {"version": version, "weights_sha256": sha256_of(weights), **options.settings}
    manifest = Manifest(len(pairs), pairs.sha256, images.sha256, options.shard_size, settings)
    output = Path(options.output)
    with locked(output):
        run = start_run(output, manifest, pairs, images)
        if run.missing():
            check_space(run, root, options, tell, warn)
            match_missing(run, root, weights, options)
        failed = report(run, tell)
        export(run, root, options, tell)
    return 3 if failed else 0


def require_images(
    pairs: PairList, images: ImageFiles, options: CollectionOptions, warn: Tell
) -> None:
    """Refuse missing images (E111), unless `skip_missing`, before anything is loaded."""
    alone = int((pairs.index[:, 0] == pairs.index[:, 1]).sum())
    if alone:
        warn(f"warning   {alone} pairs of an image with itself")
    absent = [pairs.names[i] for i in np.flatnonzero(images.missing)]
    for name in absent:
        warn(f"missing   {encode_name(name)}")
    if absent and not options.skip_missing:
        what = f"{len(absent)} of {len(pairs.names)} images are missing: {shortened(absent)}"
        remedy = "skip_missing=true goes on without them"
        raise missing(options.pairs, what, remedy)


def check_space(run: Run, root: Root, options: CollectionOptions, tell: Tell, warn: Tell) -> None:
    """Tell what the run will take of the disk. Too little room is a warning, as the estimate is
    rough and a full disk loses nothing."""
    needed, free = needed_bytes(run, root, options), free_bytes(run.folder)
    tell(f"disk      needs about {size_text(needed)}, {size_text(free)} free")
    if needed > free:
        warn(f"warning   {run.folder}: the disk may become full; what is done by then is kept")


def match_missing(run: Run, root: Root, weights: Path, options: CollectionOptions) -> None:
    """Match the shards that are not done."""
    left = sum(run.range(n).stop - run.range(n).start for n in run.missing())
    progress = Progress(len(run.pairs), len(run.pairs) - left, run.folder / LOG)

    def published(shard: Shard) -> None:
        progress.advance(len(shard))

    try:
        if options.engine == "ray":
            from matcher.batch.ray import run_ray

            run_ray(run, options, root.folder, weights, published)
            return
        matcher = build_shard_matcher(options, weights, lambda i: root.path(run.pairs.names[i]))
        try:
            with warnings_noted(progress):
                run_local(run, matcher.match, published)
        finally:
            matcher.features.close()
    except BaseException as error:
        progress.note(f"stopped by {type(error).__name__} {error}".rstrip())
        raise
    finally:
        progress.close()


def report(run: Run, tell: Tell) -> int:
    """Tell how many pairs came out how, list those that failed; returns their number."""
    status = outcome(run)
    kinds, counts = np.unique(status, return_counts=True)
    found = [f"{n} {status_text(kind)}" for kind, n in zip(kinds, counts, strict=True)]
    tell(f"results   {', '.join(found)}")
    lines = []
    for i in np.flatnonzero(status > DUPLICATE):
        names = [encode_name(run.pairs.names[image]) for image in run.pairs.index[i]]
        lines.append("\t".join((*names, status_text(status[i]))))
    for line in lines[:SHOWN_FAILURES]:
        tell(f"failed    {line}")
    if lines:
        write_atomically(run.folder / FAILURES, ("\n".join(lines) + "\n").encode())
        tell(f"failures  {run.folder / FAILURES}")
    return len(lines)


def export(run: Run, root: Root, options: CollectionOptions, tell: Tell) -> None:
    """Write the results of a finished run in the format asked for."""
    if options.export == "pack":
        pack(run, run.folder / PACKED)
        tell(f"packed    {run.folder / PACKED}")
    elif options.export == "hloc":
        from matcher.batch.export.hloc import export_hloc

        for path in export_hloc(run, root, options.merge, options.converged_only):
            tell(f"hloc      {path}")
    elif options.export == "colmap":
        from matcher.batch.export.colmap import export_colmap

        how = options.merge, options.camera, options.converged_only
        tell(f"colmap    {export_colmap(run, root, *how)}")


def pack_folder(folder: Path, tell: Tell) -> int:
    """Pack a finished run that no other process writes to; returns the exit code."""
    open_run(folder)
    with locked(folder):
        pack(open_run(folder), folder / PACKED)
    tell(f"packed    {folder / PACKED}")
    return 0


def verify_folder(folder: Path, tell: Tell, warn: Tell) -> int:
    """Check every shard of a run; returns the exit code, 4 if one is damaged."""
    run = open_run(folder)
    damaged = verify(run)
    for error in damaged:
        warn(str(error))
    tell(f"shards    {len(run.done())} of {run.shards} done, {len(damaged)} damaged")
    return 4 if damaged else 0
