"""One pair of image files, from paths to a record and a picture, as `MatchOptions` ask.

Also what match.py does with a pair: `match_pair`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from matcher.drawing import matches as drawing
from matcher.errors import Code, StorageError, UsageError, missing
from matcher.files import make_folder, sha256_of
from matcher.geometry import robust
from matcher.geometry.epipolar import epipolar_error, fundamental_from_essential
from matcher.images.load import LoadedImage, read_image, read_mask, read_rgb
from matcher.options import MatchOptions
from matcher.predictor import Predictor, load_matcher
from matcher.results.record import ImageRecord, MatchRecord, write_matches
from matcher.runtime import warm_allocator
from matcher.validation.checked import config_to_dict


def match_pair(path0: str, path1: str, options: MatchOptions, version: str) -> None:
    """Match two image files, write the results and print what was done.

    Raises:
        MatcherError: it cannot be done; then nothing is written.
    """
    check_files((path0, path1), options)
    warm_allocator()
    started = time.perf_counter()
    image0, mask0 = _read(path0, options.mask0, "mask0", options)
    image1, mask1 = _read(path1, options.mask1, "mask1", options)
    matcher = load_matcher(options.weights, options)
    loaded = time.perf_counter()
    matches = matcher.match(image0, image1, mask0=mask0, mask1=mask1)
    matched = time.perf_counter()
    named0, named1 = ImageRecord(path0, *image0.size), ImageRecord(path1, *image1.size)
    how = provenance(options, matcher, version)
    record = with_model(MatchRecord(matches, named0, named1, provenance=how), options)
    tell(f"weights   {options.weights} on {matcher.device}, ready in {loaded - started:.2f} s")
    for name, image in ((path0, image0), (path1, image1)):
        tell(f"image     {name} ({image.size[0]}x{image.size[1]})")
        for warning in image.warnings:
            sys.stderr.write(f"warning   {name}: {warning}\n")
    reason = f" ({matches.reason})" if matches.reason else ""
    tell(f"matches   {len(matches)}{reason} in {matched - loaded:.2f} s")
    if record.inliers is not None:
        tell(f"geometry  {options.geometry}: {record.inliers.sum()} inliers")
    if options.output:
        write_matches(options.output, record)
        tell(f"output    {options.output}")
    if options.picture_path:
        drawing.write_picture(options.picture_path, draw_pair(record, options))
        tell(f"picture   {options.picture_path}")


def _read(
    path: str, mask: str | None, mask_name: str, options: MatchOptions
) -> tuple[LoadedImage, np.ndarray | None]:
    """An image and the mask that limits it."""
    allowed = None if mask is None else read_mask(mask)
    image = read_image(
        path,
        apply_exif=options.apply_exif,
        allow_truncated=options.allow_truncated,
        allowed=allowed,
        allowed_name=mask_name,
    )
    return image, allowed


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def check_files(images: Sequence[str], options: MatchOptions) -> None:
    """Whether all input files are there and results can go where they shall."""
    inputs = [path for path in (*images, options.mask0, options.mask1) if path is not None]
    for path in inputs:
        if not os.path.exists(path):
            is_option = "=" in path or path.startswith("--")
            hint = "the first two arguments are the images" if is_option else ""
            raise missing(path, remedy=hint)
    targets = [os.fspath(t) for t in (options.output, options.picture_path) if t is not None]
    for target in targets:
        if os.path.exists(target) and any(os.path.samefile(target, path) for path in inputs):
            what = "would replace an input"
            raise UsageError(Code.UNSAFE_VALUE, target, what, "choose another name")
        if os.path.isdir(target):
            raise StorageError(Code.UNWRITABLE, target, "is a folder", "choose another name")
        make_folder(Path(target).parent)


def provenance(options: MatchOptions, matcher: Predictor, version: str) -> dict[str, str]:
    """How a result came about, for its file."""
    architecture = json.dumps(config_to_dict(matcher.model.config), sort_keys=True)
    return {
        "version": version,
        "weights": options.weights,
        "weights_sha256": sha256_of(matcher.weights) if matcher.weights else "",
        "config_sha256": hashlib.sha256(architecture.encode()).hexdigest(),
        "exif": "applied" if options.apply_exif else "ignored",
        "options": json.dumps(config_to_dict(options), sort_keys=True),
    }


def with_model(record: MatchRecord, options: MatchOptions) -> MatchRecord:
    """The record with the model that `options` asks for; no inlier if there is none."""
    if options.geometry == "none":
        return record
    keypoints = record.matches.numpy()[:2]
    estimator = robust.Estimator(name=options.estimator, threshold=options.ransac_threshold)
    no_inliers = np.zeros(len(record.matches), bool)
    nothing = replace(record, geometry=options.geometry, inliers=no_inliers)
    if options.geometry == "essential":
        K0, K1 = (np.array(K) for K in options.intrinsics)
        pose = robust.estimate_pose(*keypoints, K0=K0, K1=K1, estimator=estimator)
        if pose is None:
            return nothing
        T_0to1 = np.eye(4)
        T_0to1[:3, :3], T_0to1[:3, 3] = pose.rotation, pose.translation
        return replace(nothing, model=pose.essential, inliers=pose.inliers, T_0to1=T_0to1)
    homography = options.geometry == "homography"
    fit = robust.estimate_homography if homography else robust.estimate_fundamental
    found = fit(*keypoints, estimator=estimator)
    return nothing if found is None else replace(nothing, model=found.matrix, inliers=found.inliers)


def draw_pair(record: MatchRecord, options: MatchOptions) -> np.ndarray:
    """The picture of a matched pair that `options` asks for; reads its images again, in color.

    Raises:
        UsageError, ImageError: an image cannot be read any more.
    """
    truncated = options.allow_truncated
    image0 = read_rgb(record.image0.name, allow_truncated=truncated)
    image1 = read_rgb(record.image1.name, allow_truncated=truncated)
    if options.style == "coverage":
        return drawing.draw_coverage(image0, image1, record.matches)
    if options.style == "overlay":
        return drawing.draw_overlay(image0, image1, record.matches, max_lines=options.lines)
    if options.style == "warp" and record.model is not None:
        return drawing.draw_warp(image0, image1, record.model)
    errors = epipolar_errors(record, options) if options.style == "epipolar" else None
    return drawing.draw_matches(
        image0,
        image1,
        record.matches,
        inliers=record.inliers,
        errors=errors,
        error_limit=3 * options.ransac_threshold,
        max_lines=options.lines,
    )


def epipolar_errors(record: MatchRecord, options: MatchOptions) -> np.ndarray | None:
    """(N,) pixels between the points of a match and their epipolar lines; None without a model."""
    if record.model is None:
        return None
    F = record.model
    if record.geometry == "essential":
        F = fundamental_from_essential(F, *(np.array(K, F.dtype) for K in options.intrinsics))
    points0, points1 = (points.astype(F.dtype) for points in record.matches.numpy()[:2])
    return epipolar_error(points0, points1, F)
