"""Match two photographs: `python match.py IMAGE0 IMAGE1 [key=value ...]`; see `--help`."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sys
import time
import tomllib
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

# Torch takes seconds to import: nothing here does before the options are known to be right.
from matcher.errors import MatcherError, StorageError, UsageError
from matcher.options import PATHS, MatchOptions, options_from, require_known

if TYPE_CHECKING:
    import numpy as np

    from matcher.storage import MatchRecord

HERE = Path(__file__).resolve().parent
FLAGS = ("--help", "-h", "--version", "--debug")
USAGE = """\
usage: python match.py IMAGE0 IMAGE1 [key=value ...] [--debug]

Finds corresponding points in two images, writes them and a picture of them.

examples:
  python match.py a.jpg b.jpg
  python match.py a.jpg b.jpg output=pairs/ab.csv threshold=0.4 top_k=1000
  python match.py a.jpg b.jpg geometry=homography style=warp picture=warp.jpg
  python match.py a.jpg b.jpg geometry=essential K=[520,520,319.5,239.5] estimator=magsac
  python match.py a.jpg b.jpg weights=outdoor device=cuda max_side=1600

options and their defaults:
{options}
  --debug     show the traceback of an error
  --version   show the version
  --help      show this

exit codes: 0 done (also with no match), 2 wrong usage or missing file, 3 unreadable image,
4 results cannot be written, 5 weights refused, 130 or 143 interrupted, 1 a bug
"""


class Terminated(BaseException):
    """SIGTERM, raised like KeyboardInterrupt so that it passes through ordinary handlers."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in (*words[:1], *words[2:])
    try:
        return run(words)
    except MatcherError as error:
        report(error, debug)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143
    except Exception as error:
        what = f"internal error, {type(error).__name__}: {error}"
        report(MatcherError(1, "match.py", what, "run again with --debug and report it"), debug)
        return 1


def report(error: MatcherError, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(error, file=sys.stderr)


def run(words: list[str]) -> int:
    """The program proper; raises MatcherError where it cannot go on."""
    while words and words[0] == "--debug":
        words = words[1:]
    paths, rest = words[:2], words[2:]
    asked = {word for word in (*words[:1], *rest) if word in FLAGS}
    if asked & {"--help", "-h"} or not words:
        defaults = (HERE / "conf" / "match.yaml").read_text().split("\n\n", 1)[1]
        print(USAGE.format(options=re.sub(r"(?m)^(\w+): ", r"  \1=", defaults).rstrip()))
        return 0 if words else 2
    if "--version" in asked:
        print(tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["version"])
        return 0
    options = read_options([word for word in rest if word not in FLAGS])
    if len(paths) < 2:
        raise UsageError(200, "match.py", f"needs two images, got {paths}", "see --help")
    check_files(paths, options)
    match_pair(paths[0], paths[1], options)
    return 0


def read_options(words: Sequence[str]) -> MatchOptions:
    """Options from ``key=value`` words.

    The names are checked here, so that nothing but values of known options reaches Hydra.
    """
    from data.compose import compose

    overrides, paths = [], {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(204, word, "is not an option", "write key=value after the two images")
        if name.lstrip("+~").startswith("hydra"):
            raise UsageError(203, name, "settings of Hydra cannot be changed", "remove it")
        require_known(name)
        if name in PATHS:
            paths[name] = None if value == "null" else value
        elif "${" in value or "_target_" in value:
            raise UsageError(203, name, f"{value!r} is refused", "write a plain value")
        else:
            overrides.append(word)
    for word in overrides:
        name, _, value = word.partition("=")
        try:
            compose("match", [word])
        except UsageError as error:
            raise UsageError(204, name, f"cannot read {value!r}", "write a plain value") from error
    return options_from({**compose("match", overrides), **paths})


def check_files(images: Sequence[str], options: MatchOptions) -> None:
    """Whether all input files are there and results can go where they shall."""
    for path in (*images, options.mask0, options.mask1):
        if path is not None and not Path(path).is_file():
            hint = "the first two arguments are the images" if "=" in path else ""
            raise UsageError(111, path, "no such file", hint)
    targets = [Path(t) for t in (options.output, options.picture_path) if t is not None]
    for target in targets:
        for path in (*images, options.mask0, options.mask1):
            if path is not None and target.exists() and target.samefile(path):
                raise UsageError(205, target, "would replace an input", "choose another name")
        if target.is_dir():
            raise StorageError(401, target, "is a folder", "choose another name")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                401, target.parent, f"cannot make folder: {error.strerror}"
            ) from error
    if len(targets) == 2 and targets[0].absolute() == targets[1].absolute():
        raise UsageError(205, targets[1], "output and picture are one file", "choose another name")


def match_pair(path0: str, path1: str, options: MatchOptions) -> None:
    """Match, fit the model, write the results and print what was done."""
    from matcher.drawing import write_picture
    from matcher.storage import ImageRecord, MatchRecord, write_matches

    started = time.perf_counter()
    matcher = load(options)
    loaded = time.perf_counter()
    matches = matcher.match(path0, path1, mask0=options.mask0, mask1=options.mask1)
    matched = time.perf_counter()
    images = [read_colour(path, options) for path in (path0, path1)]
    names = [
        ImageRecord(path, width=image.shape[1], height=image.shape[0])
        for path, image in zip((path0, path1), images, strict=True)
    ]
    record = MatchRecord(matches, *names, provenance=provenance(options, matcher))
    record = with_model(record, options)
    print(f"weights   {options.weights} on {matcher.device}, loaded in {loaded - started:.2f} s")
    for i, image in enumerate(names):
        print(f"image {i}   {image.name} ({image.width}x{image.height})")
    reason = f" ({matches.reason})" if matches.reason else ""
    print(f"matches   {len(matches)}{reason} in {matched - loaded:.2f} s")
    if record.inliers is not None:
        print(f"geometry  {options.geometry}: {record.inliers.sum()} inliers")
    if options.output:
        write_matches(options.output, record)
        print(f"output    {options.output}")
    if options.picture_path:
        write_picture(options.picture_path, draw(record, images, options))
        print(f"picture   {options.picture_path}")


def with_model(record: MatchRecord, options: MatchOptions) -> MatchRecord:
    """The record with the model that `options` asks for; no inlier if there is none."""
    import numpy as np

    from matcher.estimation import (
        Estimator,
        estimate_fundamental,
        estimate_homography,
        estimate_pose,
    )

    if options.geometry == "none":
        return record
    keypoints = record.matches.numpy()[:2]
    estimator = Estimator(name=options.estimator, threshold=options.ransac_threshold)
    nothing = replace(
        record, geometry=options.geometry, inliers=np.zeros(len(record.matches), bool)
    )
    if options.geometry == "essential":
        K0, K1 = (np.array(K) for K in options.intrinsics)
        pose = estimate_pose(*keypoints, K0=K0, K1=K1, estimator=estimator)
        if pose is None:
            return nothing
        T_0to1 = np.eye(4)
        T_0to1[:3, :3], T_0to1[:3, 3] = pose.rotation, pose.translation
        return replace(nothing, model=pose.essential, inliers=pose.inliers, T_0to1=T_0to1)
    homography = options.geometry == "homography"
    fit = estimate_homography if homography else estimate_fundamental
    found = fit(*keypoints, estimator=estimator)
    return nothing if found is None else replace(nothing, model=found.matrix, inliers=found.inliers)


def draw(record: MatchRecord, images: list[np.ndarray], options: MatchOptions) -> np.ndarray:
    """The picture that `options` asks for."""
    from matcher.drawing import draw_coverage, draw_matches, draw_overlay, draw_warp

    image0, image1 = images
    if options.style == "coverage":
        return draw_coverage(image0, image1, record.matches)
    if options.style == "overlay":
        return draw_overlay(image0, image1, record.matches, max_lines=options.lines)
    if options.style == "warp" and record.model is not None:
        return draw_warp(image0, image1, record.model)
    errors = epipolar_errors(record, options) if options.style == "epipolar" else None
    return draw_matches(
        image0,
        image1,
        record.matches,
        inliers=record.inliers,
        errors=errors,
        error_limit=3 * options.ransac_threshold,
        max_lines=options.lines,
    )


def epipolar_errors(record: MatchRecord, options: MatchOptions) -> np.ndarray | None:
    """(N,) larger distance in pixels of the two points of a match to their epipolar lines."""
    import numpy as np

    if record.model is None:
        return None
    F = record.model
    if record.geometry == "essential":
        K0, K1 = (np.linalg.inv(np.array(K)) for K in options.intrinsics)
        F = K1.T @ F @ K0
    points0, points1 = (
        np.concatenate([k, np.ones((len(k), 1))], axis=1) for k in record.matches.numpy()[:2]
    )
    lines1, lines0 = points0 @ F.T, points1 @ F
    residual = np.abs((points1 * lines1).sum(axis=1))
    norms = [np.maximum(np.linalg.norm(line[:, :2], axis=1), 1e-12) for line in (lines0, lines1)]
    return np.maximum(residual / norms[0], residual / norms[1])


def stop(number: int, frame: FrameType | None) -> None:
    """First signal: leave in order. A second one takes effect at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    sys.exit(main())
