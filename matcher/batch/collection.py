"""A collection from its options to results: what `match.py pairs=...` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from matcher.batch.disk import free_bytes, needed_bytes, size_text
from matcher.batch.export.cameras import count_known
from matcher.batch.export.packed import outcome, pack, verify
from matcher.batch.fingerprints import ImageFiles, fingerprint
from matcher.batch.image_names import Root, encode_name
from matcher.batch.manifest import Manifest, continued_list, shortened
from matcher.batch.masks import Masks
from matcher.batch.neighbors import chooser
from matcher.batch.options import CollectionOptions
from matcher.batch.pairs import PairList, find_pairs
from matcher.batch.progress import LOG, Progress, warnings_noted
from matcher.batch.requirements import (
    FAILURES,
    TARGETS,
    require_apart,
    require_images,
    require_places,
    require_tools,
)
from matcher.batch.run import Run, has_run, locked, open_run, start_run
from matcher.batch.shards import PENDING, status_text
from matcher.batch.worker import build_shard_matcher, fingerprints_of, run_local
from matcher.files import write_atomically
from matcher.weights.hub import resolve

Tell = Callable[[str], None]
Stamp = tuple[int, int, int, int] | None
"""Size, inode and times of a file, which change with it; None if it is missing."""
PACKED = "packed.h5"
SHOWN_FAILURES = 10


def match_collection(options: CollectionOptions, *, version: str, tell: Tell, warn: Tell) -> int:
    """Match a collection, or go on with it, and export the results.

    `tell` takes lines about what was done, `warn` those about what is odd. Returns the exit code:
    3 if pairs failed or images were replaced meanwhile, else 0.
    """
    require_apart(options)
    listed, folder = find_pairs(
        options.pairs,
        against=options.against,
        select="sequential" if options.select == "sequential" else "exhaustive",
        window=options.reach,
        root=options.root,
        allow_outside=options.allow_outside_root,
        warn=warn,
        choose=chooser(options, warn),
    )
    root, output = Root(folder, allow_outside=options.allow_outside_root), Path(options.output)
    before = open_run(output) if has_run(output) else None
    pairs = continued(before, listed, options)
    stamps = [stamp_of(root, name) for name in pairs.names]
    absent = np.array([stamp is None for stamp in stamps])
    for line in require_images(pairs, absent, options):
        warn(line)
    require_tools(pairs, root, options)
    duplicates = int((pairs.first < np.arange(len(pairs))).sum())
    tell(f"pairs     {len(pairs)} of {len(pairs.names)} images, {duplicates} duplicates")
    if options.cameras is not None:
        known = count_known(pairs.names, root, options.cameras)
        tell(f"cameras   of {known} of {len(pairs.names)} images")
    weights = resolve(options.weights, offline=options.offline)
    settings = {"version": version, **fingerprints_of(weights), **options.settings}
    if before is not None:
        before.manifest.require_same_settings(
            replace(before.manifest, settings=settings, shard_size=options.shard_size), output
        )
    images = fingerprints(before, pairs, root, options, tell)
    manifest = Manifest.of(pairs, images, options.shard_size, settings)
    with locked(output, options.lock):
        require_places(output, options.export)
        run = start_run(output, manifest, pairs, images, retry=options.retry)
        replaced: list[str] = []
        reasons: list[str] = []
        if run.missing():
            check_space(run, root, options, tell, warn)
            reasons = match_missing(run, root, weights, options)
            replaced = replaced_images(run, root, stamps)
            run.tidy()
        failed = report(run, reasons, tell)
        export(run, root, options, tell)
        tell_outdated(run, tell)
    for name in replaced:
        warn(f"replaced  {encode_name(name)}: while the collection ran; run the same words again")
    return 3 if failed or replaced else 0


def continued(before: Run | None, listed: PairList, options: CollectionOptions) -> PairList:
    """The pairs of the run that goes on, or of a new one."""
    if before is None:
        return listed
    return continued_list(before.pairs, listed, extend=options.extend, folder=before.folder)


def stamp_of(root: Root, name: str) -> Stamp:
    status = root.status(name)
    if status is None:
        return None
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def fingerprints(
    before: Run | None, pairs: PairList, root: Root, options: CollectionOptions, tell: Tell
) -> ImageFiles:
    """Those of the images; of images that are gone those of the run, whose results stay."""
    masks = Masks(options.masks, allow_outside=options.allow_outside_root)
    images = ImageFiles.of(pairs.names, root, readers=options.readers, masks=masks)
    if options.masks is not None:
        found = sum(mask is not None for mask in images.masks or ())
        tell(f"masks     of {found} of {len(pairs.names)} images")
    if before is None:
        return images
    count = len(before.pairs.names)
    digest = images.digest.copy()
    digest[:count][images.missing[:count]] = before.images.digest[images.missing[:count]]
    now = ImageFiles(digest, images.masks)
    changed = np.flatnonzero(before.images.differs(ImageFiles(digest[:count])))
    if len(changed):
        names = shortened([pairs.names[i] for i in changed])
        tell(f"changed   {len(changed)} images: {names}; their pairs are matched anew")
    if len(pairs) > len(before.pairs):
        tell(f"extended  by {len(pairs) - len(before.pairs)} pairs")
    return now


def replaced_images(run: Run, root: Root, stamps: list[Stamp]) -> list[str]:
    """Names of images that are not those that the run began with."""
    return [
        name
        for image, (name, stamp) in enumerate(zip(run.pairs.names, stamps, strict=True))
        if stamp_of(root, name) != stamp
        and fingerprint(root.path(name), run.images.mask(image))
        != run.images.digest[image].tobytes()
    ]


def check_space(run: Run, root: Root, options: CollectionOptions, tell: Tell, warn: Tell) -> None:
    """Tell what the run will take of the disk. Too little room is a warning, as the estimate is
    rough and a full disk loses nothing."""
    needed, free = needed_bytes(run, root, options), free_bytes(run.folder)
    tell(f"disk      needs about {size_text(needed)}, {size_text(free)} free")
    if needed > free:
        warn(f"warning   {run.folder}: the disk may become full; what is done by then is kept")


def match_missing(run: Run, root: Root, weights: Path, options: CollectionOptions) -> list[str]:
    """Match the shards that are not done; why images could not be read, as far as that is known
    here."""
    left = sum(run.length(number) for number in run.missing())
    if options.engine == "local":
        left -= sum(int((shard.status != PENDING).sum()) for _, shard in run.drafts().values())
    progress = Progress(len(run.pairs), len(run.pairs) - left, run.folder / LOG)
    try:
        if options.engine == "ray":
            from matcher.batch.ray import run_ray

            run_ray(run, options, root.folder, weights, progress.advance)
            return []
        matcher = build_shard_matcher(options, weights, run, root)
        try:
            with warnings_noted(progress):
                run_local(run, matcher.match, progress.advance)
        finally:
            matcher.features.close()
        for reason in matcher.reasons:
            progress.note(reason)
        return list(matcher.reasons)
    except BaseException as error:
        progress.note(f"stopped by {type(error).__name__} {error}".rstrip())
        raise
    finally:
        progress.close()


def report(run: Run, reasons: list[str], tell: Tell) -> int:
    """Tell how many pairs came out how and why, list those that failed; returns their number."""
    status = outcome(run)
    kinds, counts = np.unique(status, return_counts=True)
    found = [f"{n} {status_text(kind)}" for kind, n in zip(kinds, counts, strict=True)]
    tell(f"results   {', '.join(found)}")
    for reason in reasons[:SHOWN_FAILURES]:
        tell(f"reason    {reason}")
    lines = []
    for i in np.flatnonzero(status > PENDING):
        names = [encode_name(run.pairs.names[image]) for image in run.pairs.index[i]]
        lines.append("\t".join((*names, status_text(status[i]))))
    for line in lines[:SHOWN_FAILURES]:
        tell(f"failed    {line}")
    if lines:
        write_atomically(run.folder / FAILURES, ("\n".join(lines) + "\n").encode())
        tell(f"failures  {run.folder / FAILURES}; retry=true tries them again")
    else:
        (run.folder / FAILURES).unlink(missing_ok=True)
    return len(lines)


def export(run: Run, root: Root, options: CollectionOptions, tell: Tell) -> None:
    """Write the results of a finished run in the format asked for."""
    if options.export == "pack":
        pack(run, run.folder / PACKED)
        tell(f"packed    {run.folder / PACKED}")
    elif options.export == "hloc":
        from matcher.batch.export.hloc import export_hloc
        from matcher.batch.export.tracks import pixels_of

        load = pixels_of(run, root, options)
        for path in export_hloc(run, root, options.merge, options.converged_only, load):
            tell(f"hloc      {path}")
    elif options.export == "colmap":
        from matcher.batch.export.colmap import export_colmap
        from matcher.batch.export.tracks import pixels_of

        how = options.merge, options.pinhole, options.converged_only, options.cameras
        load = pixels_of(run, root, options)
        tell(f"colmap    {export_colmap(run, root, *how, load)}")
    elif options.export == "colmap_text":
        from matcher.batch.export.colmap_text import export_colmap_text

        tell(f"colmap    {export_colmap_text(run, options.merge, options.converged_only)}")
    elif options.export == "gdal":
        from matcher.batch.export.control_points import FOLDER, export_gdal

        written = export_gdal(run, root, options.converged_only)
        tell(f"gdal      {len(written)} virtual rasters and .points in {run.folder / FOLDER}")
    elif options.export == "hugin":
        from matcher.batch.export.control_points import export_hugin

        how = options.pinhole, options.cameras, options.converged_only
        tell(f"hugin     {export_hugin(run, root, *how)}")
    elif options.export == "verdicts":
        from matcher.batch.export.verdicts import export_verdicts

        written = export_verdicts(run, options.converged_only)
        tell(f"verdicts  {written.path}")
        tell(f"reliable  {written.reliable} of {written.pairs} pairs with matches")


def tell_outdated(run: Run, tell: Tell) -> None:
    """Tell of exports that are older than results of the run."""
    newest = max((path.stat().st_mtime_ns for path in run.done().values()), default=0)
    for path in (run.folder / name for names in TARGETS.values() for name in names):
        if path.is_file() and path.stat().st_mtime_ns < newest:
            tell(f"outdated  {path} is older than the results")


def pack_folder(folder: Path, tell: Tell) -> int:
    """Pack a finished run that no other process writes to; returns the exit code."""
    open_run(folder)
    with locked(folder):
        pack(open_run(folder), folder / PACKED)
    tell(f"packed    {folder / PACKED}")
    return 0


def verify_folder(folder: Path, tell: Tell, warn: Tell) -> int:
    """Check every shard of a run; returns the exit code, 4 if one is damaged, or refuses one that
    is not finished (E208)."""
    run = open_run(folder)
    damaged = verify(run)
    for error in damaged:
        warn(str(error))
    tell(f"shards    {len(run.done())} of {run.shards} done, {len(damaged)} damaged")
    if run.missing() and not damaged:
        raise run.unfinished()
    return 4 if damaged else 0
