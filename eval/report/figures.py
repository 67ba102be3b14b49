"""Figures of an evaluation, drawn without a display."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eval.measure import right_matches
from eval.methods import ALL
from eval.runner import Evaluation
from matcher.files import write_atomically

COLORS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442",
)  # fmt: skip
"""Distinct to color-blind readers (Okabe and Ito)."""


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """A color for each method: those of `ALL` have the same in every report, weights and others
    what is left, in the order in which they come."""
    names = list(dict.fromkeys(methods))
    colors = {name: COLORS[ALL.index(name)] for name in names if name in ALL}
    left = [color for color in COLORS if color not in colors.values()] or COLORS
    others = [name for name in names if name not in colors]
    return colors | dict(zip(others, cycle(left), strict=False))


@contextmanager
def picture(path: Path) -> Iterator[Axes]:
    """Axes whose figure is written to `path`. No global state: nothing stays open."""
    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    yield axes
    data = BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    write_atomically(path, data.getvalue())


def as_text(name: str) -> str:
    """A name as Matplotlib shows it, which takes what stands between dollars for formulas."""
    return name.replace("$", r"\$")


def error_curves(path: Path, evaluations: Sequence[Evaluation], colors: Mapping[str, str]) -> None:
    """Share of pairs below an error; the areas under these curves are the AUCs."""
    pose = "auc5" in evaluations[0].record
    name, limit, unit = ("error", 20, "deg") if pose else ("corner_error", 10, "px")
    with picture(path) as axes:
        for evaluation in evaluations:
            errors = np.sort(np.array([row[name] for row in evaluation.rows], dtype=float))
            share = 100 * np.arange(1, len(errors) + 1) / len(errors)
            inside = errors < limit
            level = share[inside][-1:] if inside.any() else [0.0]
            x = np.concatenate([[0.0], errors[inside], [limit]])
            y = np.concatenate([[0.0], share[inside], level])
            method = evaluation.record["method"]
            axes.plot(x, y, color=colors[method], label=as_text(method))
        title = "larger of rotation and translation error" if pose else "mean corner error"
        axes.set(xlabel=f"{title} ({unit})", ylabel="pairs below (%)", xlim=(0, limit))
        axes.set(ylim=(0, 100), title=as_text(evaluations[0].record["dataset"]))
        axes.legend()


def precision_recall(
    path: Path, evaluations: Sequence[Evaluation], colors: Mapping[str, str]
) -> None:
    """Precision of the most confident matches against how many of them are right."""
    with picture(path) as axes:
        for evaluation in evaluations:
            scores, right = scored_matches(evaluation)
            order = np.argsort(-scores, kind="stable")
            hits = np.cumsum(right[order])
            share = hits / np.arange(1, len(order) + 1)
            x, step = hits / len(evaluation.rows), max(1, len(order) // 2000)
            method = evaluation.record["method"]
            axes.plot(x[::step], 100 * share[::step], color=colors[method], label=as_text(method))
        axes.set(xlabel="right matches a pair", ylabel="precision (%)", ylim=(0, 101))
        axes.set(
            title=f"{as_text(evaluations[0].record['dataset'])}: matches by falling confidence"
        )
        axes.legend()


def scored_matches(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of every match of every pair, and whether it is right."""
    scores, right = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    benchmark = evaluation.benchmark
    for pair, prediction in zip(benchmark.pairs, evaluation.predictions, strict=True):
        if len(prediction.matches):
            scores.append(prediction.matches.scores.numpy())
            right.append(right_matches(pair, prediction, benchmark.sizing))
    return np.concatenate(scores), np.concatenate(right)


def time_against_auc(
    path: Path, evaluations: Sequence[Evaluation], colors: Mapping[str, str]
) -> None:
    """Accuracy against seconds a pair."""
    pose = "auc10" in evaluations[0].record
    with picture(path) as axes:
        for evaluation in evaluations:
            record, seconds = evaluation.record, evaluation.timing["seconds_median"]
            area = record["auc10" if pose else "corner_auc5"]
            at = max(seconds, 1e-4), area
            axes.plot(*at, "o", color=colors[record["method"]])
            axes.annotate(as_text(record["method"]), at, (5, 5), textcoords="offset points")
        axes.set(xscale="log", xlabel="median seconds a pair", ylim=(0, 110))
        axes.set(ylabel="pose AUC@10" if pose else "corner AUC@5")
        axes.set(title=as_text(evaluations[0].record["dataset"]))
        axes.margins(x=0.3)
