"""Measure and report: `python -m benchmarks`; `--help` lists how to choose a part of it.

Each method runs in a process of its own, so that its peak memory is its own. The processes take
turns call by call, so that a slow moment of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.pair_methods import METHODS, needed_bytes
from benchmarks.report import write_report
from benchmarks.worker import Case, Worker
from matcher.errors import Code, StorageError
from matcher.files import require_writable, write_atomically
from matcher.terminal.program import program

ROOT = Path(__file__).resolve().parents[1]
SIZES = ((480, 640), (832, 832), (1024, 1024), (1600, 1184), (2048, 2048))
ATTENTION = ("ours", "ours, levels by size", "published", "full", "linear")
EXTRA = {"EfficientLoFTR": "transformers"}
MEMORY = 12e9
"""Peers whose matrix of confidences needs more are left out."""
LEAST_REPEATS = 3
FULL_TOKENS = 128 * 128


@program()
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = parser().parse_args(words)
    require_writable([options.output, *([options.report] if options.report else [])])
    rows = earlier_rows(options.output)
    run = time.strftime("%Y-%m-%d %H:%M:%S")
    for group in groups(options):
        for row in measure(group, options):
            row["run"] = run
            rows = [*(old for old in rows if key(old) != key(row)), row]
        write_atomically(options.output, (json.dumps(rows, indent=1) + "\n").encode())
    if options.report:
        write_report(rows, options.report)
    return 0


def earlier_rows(path: Path) -> list[dict[str, Any]]:
    """What earlier runs measured; `StorageError` (E402) where it cannot be read."""
    try:
        return json.loads(path.read_text()) if path.exists() else []
    except (OSError, ValueError) as error:
        remedy = "move it away, or give another --output"
        raise StorageError(Code.DAMAGED_RESULT, path, f"cannot be read: {error}", remedy) from error


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    out.add_argument("--parts", nargs="*", default=["attention", "pair"], help="none: report only")
    pixels = "pixels HxW; tokens are at 1/8"
    out.add_argument("--sizes", nargs="+", type=size_of, default=SIZES, help=pixels)
    out.add_argument("--methods", nargs="+", help=f"of {[*METHODS]} or the attention calls")
    out.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    out.add_argument("--devices", nargs="+", default=devices())
    out.add_argument("--repeats", type=int, default=5, help="at most")
    enough = "enough for a case; a first call of twice that is the only one"
    out.add_argument("--seconds", type=float, default=5.0, help=enough)
    out.add_argument("--threads", type=int, default=torch.get_num_threads())
    results = ROOT / "outputs" / "benchmarks.json"
    out.add_argument("--output", type=Path, default=results, help="new rows replace old ones")
    out.add_argument("--report", type=Path, help="such as docs/records/performance.md")
    return out


def size_of(text: str) -> tuple[int, int]:
    """(height, width); argparse tells of a ValueError."""
    height, width = (int(side) for side in text.split("x"))
    return height, width


def devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def groups(options: argparse.Namespace) -> list[list[Case]]:
    """Cases to compare with one another, which are measured in turns."""
    out: list[list[Case]] = []
    for size in options.sizes:
        for dtype in options.dtypes:
            for device in options.devices if "pair" in options.parts else ():
                if dtype == "bfloat16" and device == "cpu" and size != (480, 640):
                    continue
                out.append(
                    [
                        Case("pair", name, size, dtype, device=device)
                        for name in METHODS
                        if needed_bytes(name, size) <= MEMORY and available(name)
                        and not (name == "OpenCV SIFT" and (dtype != "float32" or device != "cpu"))
                    ]
                )  # fmt: skip
            for training in (False, True) if "attention" in options.parts else ():
                cases = [Case("attention", name, size, dtype, training) for name in ATTENTION]
                out.append([case for case in cases if fits(case)])
    if options.methods:
        out = [[case for case in group if case.method in options.methods] for group in out]
    return [group for group in out if group]


def fits(case: Case) -> bool:
    """Some take minutes, or all memory, where nobody would use them."""
    heavy = case.training and case.method in ("full", "published")
    return case.tokens <= FULL_TOKENS or not (case.dtype == "bfloat16" or heavy)


def available(method: str) -> bool:
    return method not in EXTRA or find_spec(EXTRA[method]) is not None


def measure(group: Sequence[Case], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the cases that could be measured; the others are told on stderr."""
    workers = {case: Worker(options.threads) for case in group}
    first: dict[Case, tuple[float, int, int]] = {}
    for case, worker in workers.items():
        if answer_or_none(case, lambda w=worker, c=case: w.order("prepare", c) or True):
            answer = answer_or_none(case, lambda w=worker: w.order("first"))
            if answer:
                first[case] = answer
    times: dict[Case, list[float]] = {case: [] for case in first}
    for _ in range(options.repeats):
        for case, taken in times.items():
            enough = len(taken) >= LEAST_REPEATS and sum(taken) > options.seconds
            if not enough and first[case][0] <= 2 * options.seconds:
                taken.append(workers[case].order("seconds"))
    rows = [
        row_of(case, taken or [first[case][0]], first[case], workers[case])
        | {"conditions": conditions(case.device, options.threads)}
        for case, taken in times.items()
    ]
    for worker in workers.values():
        worker.close()
    return rows


def row_of(
    case: Case, taken: Sequence[float], first: tuple[float, int, int], worker: Worker
) -> dict[str, Any]:
    peak = worker.order("peak_megabytes")
    _, flops, matches = first
    row = {
        "part": case.part, "method": case.method, "size": list(case.size), "dtype": case.dtype,
        "training": case.training, "device": case.device, "tokens": case.tokens,
        "seconds": statistics.median(taken), "least": min(taken), "most": max(taken),
        "repeats": len(taken), "peak_megabytes": peak, "flops": flops, "matches": matches,
    }  # fmt: skip
    name = f"{case.part} {case.method} {case.size[0]}x{case.size[1]} {case.dtype}"
    spread = f"[{min(taken):.3f}, {max(taken):.3f}]"
    what = "step" if case.training else "call"
    print(f"{name:48} {what} {row['seconds']:8.3f} s {spread} {peak:6.0f} MB", flush=True)
    return row


def conditions(device: str, threads: int) -> str:
    """The machine and the versions behind a measurement, in words."""
    if device == "cpu":
        information = Path("/proc/cpuinfo")
        text = information.read_text() if information.is_file() else ""
        model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
        where = f"{threads} threads on {model[1] if model else platform.machine()}"
    else:
        where = torch.cuda.get_device_name(device)
    return f"{where}, PyTorch {torch.__version__}"


def answer_or_none(case: Case, order: Callable[[], Any]) -> Any:
    """Answer of a worker to `order`, or None and a line on stderr where it failed."""
    try:
        return order()
    except RuntimeError as error:
        print(f"left out: {case}: {error}", file=sys.stderr)
        return None


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("part", "method", "size", "dtype", "training", "device")
    return tuple(str(row[name]) for name in names)


if __name__ == "__main__":
    sys.exit(main())
