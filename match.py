"""Match two photographs: `python match.py IMAGE0 IMAGE1 [key=value ...]`; see `--help`."""

from __future__ import annotations

import os
import re
import signal
import sys
import tomllib
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Any

# Torch takes seconds to import: nothing here does before the options are known to be right.
from matcher.errors import Code, MatcherError, StorageError, UsageError
from matcher.files import make_folder
from matcher.options import PATHS, MatchOptions, options_from, require_known

HERE = Path(__file__).resolve().parent
COMMANDS = ("pairs=", "pack=", "verify=")
"""How the words of a program for collections begin; see `matcher.batch.cli`."""
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
  python match.py pairs=list.txt output=run export=colmap   (more: match.py pairs= --help)

options and their defaults:
{options}
  --debug     show the traceback of an error
  --version   show the version
  --help      show this

exit codes: 0 done (also with no match), 2 wrong usage or missing file, 3 unreadable or too
large image, 4 results cannot be written, 5 weights refused, 130 or 143 interrupted, 1 a bug
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
        report(
            MatcherError(Code.BUG, "match.py", what, "run again with --debug and report it"), debug
        )
        return 1


def report(error: MatcherError, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(error, file=sys.stderr)


def run(words: list[str]) -> int:
    """The program proper; raises MatcherError where it cannot go on."""
    while words and words[0] == "--debug":
        words = words[1:]
    if words and words[0].startswith(COMMANDS):
        from matcher.batch.cli import run_collection

        return run_collection(
            [w for w in words if w != "--debug"], read_values, describe, version()
        )
    paths, rest = words[:2], words[2:]
    asked = {word for word in (*words[:1], *rest) if word in FLAGS}
    if asked & {"--help", "-h"} or not words:
        print(USAGE.format(options=describe("match")))
        return 0 if words else 2
    if "--version" in asked:
        print(version())
        return 0
    options = read_options([word for word in rest if word not in FLAGS])
    if len(paths) < 2:
        raise UsageError(
            Code.MISSING_IMAGE, "match.py", f"needs two images, got {paths}", "see --help"
        )
    check_files(paths, options)
    match_pair(paths[0], paths[1], options)
    return 0


def read_options(words: Sequence[str]) -> MatchOptions:
    """Options of one pair from ``key=value`` words."""
    return options_from(read_values(words, "match", MatchOptions, PATHS))


def read_values(
    words: Sequence[str], config: str, kind: type, paths: Sequence[str]
) -> dict[str, Any]:
    """Values of options of a `kind` from ``key=value`` words over ``conf/<config>.yaml``.

    The values of `paths` are taken as they are.
    The names are checked here, so that nothing but values of known options reaches Hydra.
    """
    from conf import compose

    overrides, verbatim = [], {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(
                Code.UNUSABLE_WORD, word, "is not an option", "write key=value after the images"
            )
        if name.lstrip("+~").startswith("hydra"):
            raise UsageError(
                Code.REFUSED_WORD, name, "settings of Hydra cannot be changed", "remove it"
            )
        require_known(name, kind)
        if name in paths:
            verbatim[name] = None if value == "null" else value
        elif "${" in value or "_target_" in value:
            raise UsageError(
                Code.REFUSED_WORD, name, f"{value!r} is refused", "write a plain value"
            )
        else:
            overrides.append(word)
    for word in overrides:
        name, _, value = word.partition("=")
        try:
            compose(config, [word])
        except UsageError as error:
            raise UsageError(
                Code.UNUSABLE_WORD, name, f"cannot read {value!r}", "write a plain value"
            ) from error
    return {**compose(config, overrides), **verbatim}


def describe(config: str) -> str:
    """The options in ``conf/<config>.yaml`` and their defaults, as the usage shows them."""
    defaults = (HERE / "conf" / f"{config}.yaml").read_text().split("\n\n", 1)[1]
    return re.sub(r"(?m)^(\w+): ", r"  \1=", defaults).rstrip()


def check_files(images: Sequence[str], options: MatchOptions) -> None:
    """Whether all input files are there and results can go where they shall."""
    inputs = [path for path in (*images, options.mask0, options.mask1) if path is not None]
    for path in inputs:
        if not os.path.exists(path):
            hint = "the first two arguments are the images" if "=" in path else ""
            raise UsageError(Code.MISSING_FILE, path, "no such file", hint)
    targets = [os.fspath(t) for t in (options.output, options.picture_path) if t is not None]
    for target in targets:
        if os.path.exists(target) and any(os.path.samefile(target, path) for path in inputs):
            raise UsageError(
                Code.UNSAFE_VALUE, target, "would replace an input", "choose another name"
            )
        if os.path.isdir(target):
            raise StorageError(Code.UNWRITABLE, target, "is a folder", "choose another name")
        make_folder(Path(target).parent)


def match_pair(path0: str, path1: str, options: MatchOptions) -> None:
    """Match, write the results and print what was done."""
    from matcher.drawing.matches import write_picture
    from matcher.pair import draw_pair, match_files
    from matcher.results.record import write_matches
    from matcher.runtime import warm_allocator

    warm_allocator()
    result = match_files(path0, path1, options, version=version())
    record = result.record
    print(f"weights   {options.weights} on {result.device}, ready in {result.load_seconds:.2f} s")
    for image, warnings in zip((record.image0, record.image1), result.warnings, strict=True):
        print(f"image     {image.name} ({image.width}x{image.height})")
        for warning in warnings:
            print(f"warning   {image.name}: {warning}", file=sys.stderr)
    reason = f" ({record.matches.reason})" if record.matches.reason else ""
    print(f"matches   {len(record.matches)}{reason} in {result.match_seconds:.2f} s")
    if record.inliers is not None:
        print(f"geometry  {options.geometry}: {record.inliers.sum()} inliers")
    if options.output:
        write_matches(options.output, record)
        print(f"output    {options.output}")
    if options.picture_path:
        write_picture(options.picture_path, draw_pair(record, options))
        print(f"picture   {options.picture_path}")


def version() -> str:
    return tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["version"]


def stop(number: int, frame: FrameType | None) -> None:
    """First signal: leave in order. A second one takes effect at once."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be text
    sys.exit(main())
