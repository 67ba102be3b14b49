"""The table and the figure of the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from eval.attention_kinds.accuracy import interval_of_difference
from eval.attention_kinds.costs import MEMORY_BATCH, Costs
from eval.attention_kinds.mass import Mass
from eval.metrics import wilson_interval
from eval.report.figures import COLORS, picture
from eval.report.tables import markdown_table

Runs = Mapping[str, Mapping[int, np.ndarray]]
"""Ranks (N,) of the runs of every row, by its name and by seed."""
BASE = "quadtree_b"
"""The row that the others are compared with."""
HEAD = (
    "attention",
    "keys a query, stage 1",
    "MMAC",
    "parameters k",
    "CPU ms an image",
    f"peak MB of {MEMORY_BATCH}",
    "top-1 %, by seed",
    "95% interval",
    f"minus {BASE}",
    "% of full attention at its cells (best possible)",
)


def table(costs: Mapping[str, Costs], runs: Runs, masses: Mapping[str, Mass]) -> str:
    """A Markdown table; what was not measured is a dash."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for name, cost in costs.items():
        figures = (
            f"{cost.keys:,}",
            f"{cost.multiply_adds / 1e6:.0f}",
            f"{cost.parameters / 1e3:,.0f}",
            f"{cost.milliseconds:.1f}",
            f"{cost.megabytes:.0f}",
        )
        mass = masses.get(name)
        share = f"{100 * mass.reached:.1f} ({100 * mass.best:.1f})" if mass else "-"
        rows.append((name, *figures, *_accuracy(name, runs), share))
    return markdown_table(rows)


def figure(path: Path, costs: Mapping[str, Costs], runs: Runs) -> None:
    """Top-1 with its interval over multiply-adds, a point a row; times where nothing is trained."""
    with picture(path) as axes:
        for (name, cost), color in zip(costs.items(), COLORS * 2, strict=False):
            x = cost.multiply_adds / 1e6
            marker = "o" if name.startswith("quadtree") else "s"
            if runs.get(name):
                share, low, high = pooled(runs[name])
                y, error = (
                    100 * share,
                    [[100 * max(0.0, end)] for end in (share - low, high - share)],
                )
            else:
                y, error = cost.milliseconds, None
            axes.errorbar(x, y, yerr=error, color=color, marker=marker, label=name, linestyle="")
        axes.set(xlabel="multiply-adds of an image, forward (millions)")
        axes.set(ylabel="top-1 (%)" if runs else "CPU ms an image, forward and backward")
        axes.legend(fontsize="small")


def pooled(by_seed: Mapping[int, np.ndarray]) -> tuple[float, float, float]:
    """Top-1 over all seeds and the interval (Wilson) of a single run of that share."""
    hits = np.stack([ranks < 1 for ranks in by_seed.values()])
    share, count = float(hits.mean()), hits.shape[1]
    return share, *wilson_interval(round(share * count), count)


def _accuracy(name: str, runs: Runs) -> tuple[str, str, str]:
    by_seed = runs.get(name)
    if not by_seed:
        return "-", "-", "-"
    each = ", ".join(f"{100 * float((ranks < 1).mean()):.1f}" for ranks in by_seed.values())
    _, low, high = pooled(by_seed)
    interval = f"{100 * low:.1f} to {100 * high:.1f}"
    if name == BASE or not runs.get(BASE):
        return each, interval, "-"
    gain, worst, best = (100 * x for x in interval_of_difference(by_seed, runs[BASE]))
    return each, interval, f"{gain:+.1f} ({worst:+.1f} to {best:+.1f})"
