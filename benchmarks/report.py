"""The page of figures: tables, growth with the number of tokens, one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matcher.files import write_atomically

Row = dict[str, Any]
TARGETS = (
    ("attention", False, [480, 640], "published", "ours", 4.0),
    ("attention", True, [480, 640], "published", "ours", 3.0),
    ("attention", False, [480, 640], "full", "ours", 4.0),
    ("attention", False, [1024, 1024], "full", "ours", 12.0),
    ("pair", False, [480, 640], "kornia LoFTR", "compact", 12.0),
    ("pair", False, [480, 640], "kornia LoFTR", "published", 1.2),
)
INTRODUCTION = """\
# Speed and memory

Measured with {conditions}.

Written by `make bench`; do not edit. Each method runs in a process of its own, and the processes
take turns call by call. A time is the median of the repeats, with the least and the most in
brackets. Memory is the largest resident size of the process, with
Python and PyTorch in it; on a GPU that of the tensors. What is wanted of a ratio is the goal of the
project, met or not.

**Attention call**: projected queries, keys and values in, message out; 256 channels, 8 heads, K of
16, 8 and 8. *published* is a port of the published operator, one gather for each child; *full* is
PyTorch's scaled dot-product attention; *linear* is LoFTR's; *levels by size* adds levels until the
coarsest has at most 1,200 cells.

**Whole pair**: from a photograph and itself moved by 8 pixels to matches. *published* is this
library with the published QuadTree architecture; the weights of every method but *compact* are
random. A matcher is told the threshold at which it refines an eighth as many matches as there are
cells of 8x8 pixels, where it has so many; EfficientLoFTR refines every cell at any threshold.
*OpenCV SIFT* is RootSIFT with at most 4,096 keypoints an image, matched both ways.

FLOPs are those that `torch.utils.flop_counter` knows: products and convolutions, not the fused
kernel of *full*. Growth is the exponent e in time ~ tokens^e, fitted over all sizes measured.
"""


def growth(tokens: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Least-squares exponent of a power law; None from fewer than two sizes."""
    if len(set(tokens)) < 2:
        return None
    x, y = [math.log(t) for t in tokens], [math.log(s) for s in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def write_report(rows: Sequence[Row], path: Path) -> None:
    """Write the page, and the figure to ``images/performance.png`` beside it."""
    conditions = "; ".join(sorted({row["conditions"] for row in rows})) or "nothing yet"
    sections = [INTRODUCTION.format(conditions=conditions)]
    compared = ratios(rows)
    if compared:
        sections.append("\n## Ratios, each within one run, float32, cpu\n\n" + compared)
    figure = path.parent / "images" / "performance.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw(rows, figure)
    sections.append(f"\n![Seconds over tokens](images/{figure.name})\n")
    for title, chosen in sections_of(rows):
        sections.append(f"\n## {title}\n\n{table(chosen)}")
    write_atomically(path, "".join(sections).encode())


def sections_of(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    names = {
        ("attention", False): "Attention call, forward",
        ("attention", True): "Attention call, training step",
        ("pair", False): "Whole pair",
    }
    out: list[tuple[str, list[Row]]] = []
    kinds = {(r["device"], r["dtype"]) for r in rows}
    for device, dtype in sorted(kinds, key=lambda kind: (kind[0], kind[1] != "float32", kind[1])):
        for (part, training), name in names.items():
            chosen = [
                r for r in rows
                if (r["part"], r["training"], r["device"], r["dtype"])
                == (part, training, device, dtype)
            ]  # fmt: skip
            if chosen:
                out.append((f"{name}, {dtype}, {device}", chosen))
    return out


def table(rows: Sequence[Row]) -> str:
    """A line for each method and size, the growth with the last size of a method."""
    lines = [
        "| method | size | tokens | seconds | peak MB | GFLOP | matches | growth |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = sorted((r for r in rows if r["method"] == method), key=lambda r: r["tokens"])
        exponent = growth([r["tokens"] for r in of_method], [r["seconds"] for r in of_method])
        for row in of_method:
            last = row is of_method[-1] and exponent is not None
            lines.append(
                f"| {method} | {row['size'][0]}x{row['size'][1]} | {row['tokens']} "
                f"| {row['seconds']:.3g} [{row['least']:.3g}, {row['most']:.3g}] "
                f"| {row['peak_megabytes']:.0f} | {row['flops'] / 1e9 or float('nan'):.3g} "
                f"| {row['matches'] or ''} | {f'{exponent:.2f}' if last else ''} |"
            )
    return "\n".join(lines).replace("| nan |", "|  |") + "\n"


def ratios(rows: Sequence[Row]) -> str:
    """How many times as long the first takes, both measured in one run in fp32 on the CPU."""
    lines = []
    for part, training, size, slow, fast, target in TARGETS:
        times = {
            (r["method"], r["run"]): r["seconds"]
            for r in rows
            if (r["part"], r["training"], r["size"]) == (part, training, size)
            and (r["dtype"], r["device"]) == ("float32", "cpu")
        }
        what = f"{part}{', training step' if training else ''} | {size[0]}x{size[1]}"
        for (method, run), seconds in times.items():
            if method == slow and (fast, run) in times:
                ratio = seconds / times[fast, run]
                lines.append(f"| {what} | {slow} / {fast} | {ratio:.2f} | >= {target:g} |")
    head = "| what | size | times | measured | wanted |\n|---|---|---|---|---|\n"
    return head + "\n".join(lines) + "\n" if lines else ""


def draw(rows: Sequence[Row], path: Path) -> None:
    """Seconds over tokens, one panel for each section of the CPU in fp32."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    from eval.report.figures import method_colors

    panels = [s for s in sections_of(rows) if s[0].endswith("float32, cpu")]
    figure = Figure(figsize=(4 * max(1, len(panels)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    colors = method_colors(row["method"] for _, chosen in panels for row in chosen)
    for i, (title, chosen) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1, title=title.removesuffix(", float32, cpu"))
        tokens = sorted({row["tokens"] for row in chosen})
        for method in dict.fromkeys(row["method"] for row in chosen):
            points = sorted((r["tokens"], r["seconds"]) for r in chosen if r["method"] == method)
            style = {"color": colors[method], "marker": "o", "markersize": 3, "label": method}
            axes.loglog(*zip(*points, strict=True), **style)
        axes.set(xlabel="tokens", ylabel="seconds")
        axes.set_xticks(tokens, [f"{count / 1000:.3g}k" for count in tokens])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.grid(alpha=0.3)
        axes.legend(
            fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.2)
        )
    figure.savefig(path, dpi=100)
