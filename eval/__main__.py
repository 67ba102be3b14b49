"""Evaluate matchers: `python -m eval benchmark=NAME [key=value ...]`; see `--help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from conf import CONF, compose
from eval.options import EvalOptions, eval_options, split_names
from matcher.errors import Code, UsageError, require_extra
from matcher.files import check_targets, only_writer
from matcher.terminal.program import program
from matcher.validation.checked import invalid
from matcher.validation.words import describe, key_values

RENDERED = ("synthetic", "warps")
"""Kinds of benchmarks whose data are all photographs in a folder and below it."""
USAGE = """\
usage: python -m eval benchmark=NAME[,NAME...] [key=value ...] [--debug]

benchmarks: {benchmarks}

examples:
  python -m eval benchmark=synthetic method=compact,rootsift
  python -m eval benchmark=pairs root=../shared/eval/strecha method=all protocol=poselib,loftr
  python -m eval benchmark=megadepth1500 root=/data/megadepth method=outdoor protocol=loftr
  python -m eval benchmark=warps root=photos method=runs/NAME/best.safetensors

options:
{options}
"""


def usage() -> str:
    names = sorted(path.stem for path in (CONF / "benchmark").glob("*.yaml"))
    return USAGE.format(benchmarks=", ".join(names), options=describe(EvalOptions))


@program(usage, needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    plans = read_options(words)
    if any(plan.report for plan in plans):
        require_extra("matplotlib", "dev", "report=true")
    from eval.report.page import write_reports
    from eval.runner import evaluate

    output = Path(plans[0].output)
    check_places(plans)
    with only_writer(output, "wait for that evaluation, or use another output"):
        for line in write_reports(output, evaluate(plans), plans[0], words):
            print(line)
    return 0


def check_places(plans: Sequence[EvalOptions]) -> None:
    """Whether results can go where they shall, before anything is matched.

    Raises:
        UsageError: they would lie among the data, or among photographs to render from (E205).
        StorageError: a folder cannot be made, or a name is taken (E401).
    """
    from eval.report.page import FILES

    output, document = Path(plans[0].output), plans[0].document
    place = Path(os.path.realpath(output))
    for kind, folder in ((plan.benchmark.kind, plan.benchmark.root) for plan in plans):
        root = Path(os.path.realpath(folder)) if folder else None
        if place == root or (kind in RENDERED and root in place.parents):
            what = "is the folder of the data, or below its photographs"
            raise UsageError(Code.UNSAFE_VALUE, f"output={output}", what, "choose another folder")
    check_targets([*(output / name for name in FILES), *([document] if document else [])], ())


def read_options(words: Sequence[str]) -> list[EvalOptions]:
    """One set of options for each benchmark that is named."""
    benchmarks, given, direct = ("synthetic",), [], {}
    for word in key_values(words):
        name, equals, value = word.partition("=")
        if equals and name == "benchmark":
            benchmarks = split_names(value)
        elif equals and name in ("method", "protocol"):
            direct[name] = value
        else:
            given.append(f"benchmark.{word}" if name == "root" else word)
    if not benchmarks:
        raise invalid("benchmark", "", "at least one name")
    if len(benchmarks) > 1 and any(word.startswith("benchmark.root=") for word in given):
        raise UsageError(Code.INVALID_VALUE, "root", "belongs to one benchmark", "name only one")
    return [
        eval_options(compose("eval", [f"benchmark={benchmark}", *given]) | direct)
        for benchmark in benchmarks
    ]


if __name__ == "__main__":
    sys.exit(main())
