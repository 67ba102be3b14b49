"""One pair of image files, from paths to a record and a picture, as `MatchOptions` ask.

Also what the program does with a pair: `match_pair`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from matcher.drawing import matches as drawing
from matcher.errors import missing
from matcher.files import check_targets, replaced, sha256_of
from matcher.geometry import robust
from matcher.geometry.cameras import Camera
from matcher.geometry.epipolar import epipolar_error, fundamental_from_essential
from matcher.geometry.pose import estimate_camera_pose
from matcher.geometry.verdict import Kind, judge, judge_model
from matcher.images.cameras import EXIF, find_camera, read_cameras
from matcher.images.load import LoadedImage, load_image, read_mask, read_rgb
from matcher.images.opening import unchanged
from matcher.interop.pair_files import write_for_others
from matcher.options import MatchOptions
from matcher.predictor import Predictor, load_matcher
from matcher.results.formats import FOREIGN_SUFFIXES
from matcher.results.record import ImageRecord, MatchRecord, write_matches
from matcher.runtime import warm_allocator
from matcher.terminal.program import tell, warn

POSES = ("essential", "pose")
"""Kinds of geometry that tell how the cameras stand."""


def match_pair(path0: str, path1: str, options: MatchOptions, version: str) -> None:
    """Match two image files, write the results and print what was done.

    Raises:
        MatcherError: it cannot be done; then nothing is written.
    """
    options = named_after(options, path0, path1)
    check_files((path0, path1), options)
    warm_allocator()
    started = time.perf_counter()
    matcher = load_matcher(options.weights, options)
    loaded = time.perf_counter()
    with unchanged(path0, path1):
        image0, mask0 = read_input(path0, options.mask0, "mask0", matcher)
        image1, mask1 = read_input(path1, options.mask1, "mask1", matcher)
        read = time.perf_counter()
        matches = matcher.match(image0, image1, mask0=mask0, mask1=mask1)
        matched = time.perf_counter()
        named0, named1 = ImageRecord(path0, *image0.size), ImageRecord(path1, *image1.size)
        how = provenance(options, matcher, version) | conversions(image0, image1)
        record = MatchRecord(matches, named0, named1, provenance=how)
        record = fitted(record, options)
    reason = f" ({matches.reason})" if matches.reason else ""
    tell(
        f"weights   {options.weights} on {matcher.device}, ready in {loaded - started:.2f} s",
        *lines_of_images((path0, image0), (path1, image1)),
        f"matches   {len(matches)}{reason} in {matched - read:.2f} s",
        *lines_of_record(record),
    )
    write_results(record, options)


def named_after(options: MatchOptions, path0: str, path1: str, suffix: str = ".h5") -> MatchOptions:
    """The options with an output that is named after the pair, where that is asked for."""
    if options.output != "auto":
        return options
    return replace(options, output=f"{Path(path0).stem}-{Path(path1).stem}{suffix}")


def read_input(
    path: str, mask: str | None, mask_name: str, matcher: Predictor
) -> tuple[LoadedImage, np.ndarray | None]:
    """An image and the mask that limits it."""
    reading = matcher.reader.reading
    allowed = None if mask is None else read_mask(mask, max_pixels=matcher.options.max_pixels)
    return load_image(path, allowed=allowed, allowed_name=mask_name, **reading), allowed


def lines_of_images(*images: tuple[str, LoadedImage]) -> Iterator[str]:
    """What was read, and what was done to it; warnings go to standard error."""
    for path, image in images:
        upright = ", turned upright by EXIF" if image.orientation != 1 else ""
        yield f"image     {path} ({image.size[0]}x{image.size[1]}{upright})"
        for warning in image.warnings:
            warn(f"warning   {path}: {warning}")


def lines_of_record(record: MatchRecord) -> Iterator[str]:
    """What the matches tell, and how far."""
    if record.matches.turned:
        yield f"turned    image 1 by {90 * record.matches.turned} degrees counterclockwise"
    if record.inliers is not None:
        yield f"geometry  {record.geometry}: {record.inliers.sum()} inliers"
    for i, camera in enumerate(record.cameras or ()):
        if not camera.focal_known:
            how = focal_source(camera, record.translation_unknown)
            yield f"focal     of image {i}: {camera.focal[0]:.1f} pixels, {how}"
    reliable = record.verdict == "reliable"
    if record.T_0to1 is not None and reliable:
        yield f"pose      {pose_text(record.T_0to1, record.translation_unknown)}"
    why = "" if reliable else ": wrong matches can agree as well as these"
    yield f"verdict   {record.verdict}{why}"


def focal_source(camera: Camera, translation_unknown: bool) -> str:
    """Where the focal length of a camera is from, and how sure it is."""
    if camera.focal_known:
        return "as given"
    if translation_unknown:
        return "uncertain, as is the rotation: planes and pure rotations may not tell it"
    return "found from the matches"


def pose_text(T_0to1: np.ndarray, translation_unknown: bool) -> str:
    """A pose in a line: angle and axis of its rotation, direction of its translation."""
    turn = cv2.Rodrigues(T_0to1[:3, :3])[0][:, 0]
    angle = float(np.linalg.norm(turn))
    axis = _direction(turn / angle) if angle else "any axis"
    moved = f"translation along {_direction(T_0to1[:3, 3])}, of unknown length"
    if translation_unknown:
        moved = "translation unknown (pure rotation or plane)"
    return f"rotation by {np.degrees(angle):.2f} degrees about {axis}; {moved}"


def _direction(vector: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.3f}' for value in vector)}]"


def write_results(record: MatchRecord, options: MatchOptions) -> None:
    """Write the files that `options` ask for, and tell where they are."""
    if options.output:
        note = replaced(options.output)
        if Path(options.output).suffix.lower() in FOREIGN_SUFFIXES:
            write_for_others(options.output, record, options)
        else:
            write_matches(options.output, record)
        tell(f"output    {options.output}{note}")
    if picture := options.picture_path:
        note = replaced(picture)
        drawing.write_picture(picture, draw_pair(record, options))
        tell(f"picture   {picture}{note}")
    elif not options.output:
        tell("output    none; output=auto writes matches and a picture, named after the images")


def check_files(images: Sequence[str], options: MatchOptions) -> None:
    """Whether all input files are there, cameras can be read and results go where they shall."""
    table = None if options.cameras == EXIF else options.cameras
    given = (*images, options.mask0, options.mask1, options.points, table)
    inputs = [path for path in given if path is not None]
    for path in inputs:
        if not os.path.exists(path):
            is_option = "=" in path or path.startswith("--")
            hint = "the first two arguments are the images" if is_option else ""
            raise missing(path, remedy=hint)
    if options.cameras:
        read_cameras(options.cameras, images)
    check_targets([t for t in (options.output, options.picture_path) if t is not None], inputs)


def provenance(options: MatchOptions, matcher: Predictor, version: str) -> dict[str, str]:
    """How a result came about, for its file."""
    architecture = json.dumps(asdict(matcher.model.config), sort_keys=True)
    return {
        "version": version,
        "weights": options.weights,
        "weights_sha256": sha256_of(matcher.weights) if matcher.weights else "",
        "config_sha256": hashlib.sha256(architecture.encode()).hexdigest(),
        "exif": "applied" if options.apply_exif else "ignored",
        "options": json.dumps(asdict(options), sort_keys=True),
    }


def conversions(image0: LoadedImage, image1: LoadedImage) -> dict[str, str | int]:
    """What was done to the images before they were matched, for the file of the result."""
    facts: dict[str, str | int] = {}
    for i, image in enumerate((image0, image1)):
        facts[f"orientation{i}"] = image.orientation
        facts[f"values{i}"] = str(image.normalization)
    return facts


def fitted(
    record: MatchRecord, options: MatchOptions, cameras: tuple[Camera, Camera] | None = None
) -> MatchRecord:
    """The record with the model that `options` asks for, no inlier if there is none, and the
    verdict about it; about the matches where no model is asked for.

    Args:
        cameras: of both images; None: what `options` tell of them.
    """
    estimator = robust.Estimator(name=options.estimator, threshold=options.ransac_threshold)
    if options.geometry == "none":
        return replace(record, verdict=judge(record.matches, estimator=estimator).word)
    no_inliers = np.zeros(len(record.matches), bool)
    record = replace(record, geometry=options.geometry, inliers=no_inliers)
    if options.geometry in POSES:
        return judged(with_pose(record, cameras or cameras_of(record, options), estimator), options)
    homography = options.geometry == "homography"
    fit = robust.estimate_homography if homography else robust.estimate_fundamental
    found = fit(*record.matches.numpy()[:2], estimator=estimator)
    if found is not None:
        record = replace(record, model=found.matrix, inliers=found.inliers)
    return judged(record, options)


def with_pose(
    record: MatchRecord, cameras: tuple[Camera, Camera], estimator: robust.Estimator
) -> MatchRecord:
    """The record with the pose that its matches agree on; as it is if there is none."""
    exact = record.matches.converged
    pose = estimate_camera_pose(
        *record.matches.numpy()[:2],
        camera0=cameras[0],
        camera1=cameras[1],
        estimator=estimator,
        exact=None if exact is None else exact.numpy(),
    )
    if pose is None:
        return record
    T_0to1 = np.eye(4)
    T_0to1[:3, :3], T_0to1[:3, 3] = pose.rotation, pose.translation
    cameras = pose.camera0, pose.camera1
    return replace(
        record, model=pose.essential, inliers=pose.inliers, T_0to1=T_0to1, cameras=cameras
    )


def cameras_of(record: MatchRecord, options: MatchOptions) -> tuple[Camera, Camera]:
    """What is known of the cameras of both images: their K, else what `cameras` tells."""
    table = read_cameras(options.cameras) if options.cameras else None
    out = []
    for image, K in zip((record.image0, record.image1), options.intrinsics, strict=True):
        size = image.width, image.height
        if K is not None:
            out.append(Camera.of_matrix(K, size))
        elif options.cameras:
            out.append(find_camera(table, image.name, image.name, size).camera)
        else:
            out.append(Camera.guessed(size))
    return out[0], out[1]


def judged(record: MatchRecord, options: MatchOptions) -> MatchRecord:
    """The record with the verdict about its model."""
    points0, points1, matrix = in_pixels(record)
    seen = np.isfinite(points0 + points1).all(axis=1)
    verdict = judge_model(
        points0[seen],
        points1[seen],
        matrix,
        kind=judged_kind(record, options),
        threshold=options.ransac_threshold,
    )
    unknown = options.geometry in POSES and verdict.translation_unknown
    return replace(record, verdict=verdict.word, translation_unknown=unknown)


def judged_kind(record: MatchRecord, options: MatchOptions) -> Kind:
    """What a model has to be judged as; with a focal length that was found, a pose has the freedom
    of a fundamental matrix."""
    if options.geometry == "homography":
        return "homography"
    known = record.cameras and all(camera.focal_known for camera in record.cameras)
    return "essential" if known else "fundamental"


def in_pixels(record: MatchRecord) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(N, 2) keypoints of both images, undistorted where cameras are known, and the homography or
    the fundamental matrix (3, 3) in these pixels; None without a model."""
    points0, points1, _ = record.matches.numpy()
    if record.cameras is None or record.model is None:
        return points0, points1, record.model
    camera0, camera1 = record.cameras
    F = fundamental_from_essential(record.model, camera0.K, camera1.K)
    return camera0.undistorted(points0), camera1.undistorted(points1), F


def draw_pair(record: MatchRecord, options: MatchOptions) -> np.ndarray:
    """The picture of a matched pair that `options` asks for; reads its images again, in color.

    Raises:
        UsageError, ImageError: an image cannot be read any more.
    """
    image0, image1 = (read_color(image.name, options) for image in (record.image0, record.image1))
    if options.style == "coverage":
        return drawing.draw_coverage(image0, image1, record.matches)
    if options.style == "overlay":
        return drawing.draw_overlay(image0, image1, record.matches, max_lines=options.lines)
    if options.style == "warp" and record.model is not None:
        return drawing.draw_warp(image0, image1, record.model)
    errors = epipolar_errors(record) if options.style == "epipolar" else None
    return drawing.draw_matches(
        image0,
        image1,
        record.matches,
        inliers=record.inliers,
        errors=errors,
        error_limit=3 * options.ransac_threshold,
        max_lines=options.lines,
    )


def read_color(path: str, options: MatchOptions) -> np.ndarray:
    """(H, W, 3) uint8 of an image as stored, to draw on."""
    return read_rgb(
        path,
        allow_truncated=options.allow_truncated,
        bands=options.bands,
        nodata=options.nodata,
        max_pixels=options.max_pixels,
    )


def epipolar_errors(record: MatchRecord) -> np.ndarray | None:
    """(N,) pixels between the points of a match and their epipolar lines; None without a model."""
    points0, points1, F = in_pixels(record)
    if F is None:
        return None
    return epipolar_error(points0.astype(F.dtype), points1.astype(F.dtype), F)
