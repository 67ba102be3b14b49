"""Results as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from eval.depth_truth import FINE_PIXELS, PIXELS
from eval.summary import CORNER_LIMITS, POSE_LIMITS

Record = dict[str, Any]

COLUMNS = {
    **{f"AUC@{limit}": f"auc{limit}" for limit in POSE_LIMITS},
    "mAA@10": "maa10",
    "P 5e-4": "precision_5e4",
    "P 1e-4": "precision_1e4",
    **{f"corner AUC@{limit}": f"corner_auc{limit}" for limit in CORNER_LIMITS},
    "median corner px": "corner_error_median",
    "below 3 px": "corner_below_3px",
    **{f"MMA@{limit}": f"accuracy_{limit}px" for limit in FINE_PIXELS},
    "EPE px": "epe_median",
    **{f"precision@{limit}": f"precision_{limit}px" for limit in FINE_PIXELS},
    **{f"recall@{limit}": f"recall_{limit}px" for limit in PIXELS},
    "matches": "matches",
    "inliers": "inliers",
}
"""Titles in their order, and the keys of records below them."""
COUNTS = ("matches", "inliers")
SHARES = ("precision", "recall", "accuracy", "corner_below")
"""Beginnings of the keys that hold shares, printed in percent."""


def markdown(records: Sequence[Record], timings: Sequence[Record] = ()) -> str:
    """One table for each dataset and protocol, with what a reader needs to repeat it."""
    parts = []
    for key in dict.fromkeys(group_of(record) for record in records):
        group = [record for record in records if group_of(record) == key]
        times = {t["method"]: t for t in timings if t and group_of(t) == key}
        parts.append(f"## {key[0]}, protocol `{key[1]}`\n\n{_table(group, times)}")
        measured = [record for record in group if record["status"] == "ok"]
        if measured:
            parts.append(statement(measured[0]))
        parts += [_breakdowns(measured), *_notes(group)]
    return "\n\n".join(part for part in parts if part) + "\n"


def group_of(record: Record) -> tuple[str, str]:
    return record["dataset"], record["protocol"]


def statement(record: Record) -> str:
    """The protocol of a record in words."""
    model = record["model"]
    if model == "essential" and record["estimator"].startswith("PoseLib"):
        model += ", adjusted to inliers whose refinement converged, where a method tells them"
    facts = [
        f"{record['pairs']} pairs",
        f"{record['estimator']} ({model}), threshold {record['threshold']:g} "
        f"{record['threshold_unit']}, confidence {record['confidence']:g}, "
        f"at most {record['iterations']} iterations, seed {record['seed']}",
        f"images: {record['image_size']}",
        f"OpenCV {record['opencv']}, PoseLib {record['poselib']}",
    ]
    facts += [f"textures: {record['textures']}"] if record.get("textures") else []
    facts += [record["note"]] if record.get("note") else []
    if record["bootstrap"]:
        facts.append(f"brackets: 95% interval of {record['bootstrap']} bootstrap samples of pairs")
    return f"{'; '.join(facts)}. A pair without an estimate is an infinite error."


def _table(group: Sequence[Record], times: dict[str, Record]) -> str:
    columns = {t: key for t, key in COLUMNS.items() if any(key in record for record in group)}
    heads = ["method", *columns, "failed", *(["s/pair", "CPU s/pair", "peak MB"] if times else [])]
    lines = [_row(heads), _row(["---"] + ["---:"] * (len(heads) - 1))]
    for record in group:
        if record["status"] != "ok":
            lines.append(_row([record["method"], "unavailable", *[""] * (len(heads) - 2)]))
            continue
        cells = [record["method"], *(cell(record, key) for key in columns.values())]
        cells.append(str(len(record["failures"])))
        if times:
            time = times[record["method"]]
            cells += [f"{time[key]:.2f}" for key in ("seconds_median", "cpu_seconds_median")]
            cells.append(f"{time['peak_mb']:.0f}")
        lines.append(_row(cells))
    return "\n".join(lines)


def cell(record: Record, key: str) -> str:
    """A value as it is printed: areas with their interval, shares in percent."""
    value = record.get(key)
    if value is None:
        return "-"
    if key.startswith(SHARES):
        return f"{100 * value:.1f}"
    if f"{key}_low" in record:
        return f"{value:.1f} [{record[f'{key}_low']:.1f}, {record[f'{key}_high']:.1f}]"
    return f"{value:.0f}" if key in COUNTS else f"{value:.1f}"


def _breakdowns(group: Sequence[Record]) -> str:
    """AUC@10 in bins of overlap and rotation."""
    parts = []
    for name, title, unit in (
        ("overlap", "share of image 0 seen in image 1", ""),
        ("rotation", "rotation", " deg"),
    ):
        bins = next((r["breakdown"][name] for r in group if name in r["breakdown"]), [])
        if not bins:
            continue
        heads = [f"AUC@10 by {title}"]
        heads += [f"{b['from']:g}-{b['to']:g}{unit} ({b['pairs']})" for b in bins]
        lines = [_row(heads), _row(["---"] + ["---:"] * len(bins))]
        for record in group:
            values = [f"{b['auc10']:.1f}" for b in record["breakdown"].get(name, [])]
            lines.append(_row([record["method"], *values]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _notes(group: Sequence[Record]) -> Iterator[str]:
    """Weights of the methods, those that are unavailable, and the pairs that failed."""
    measured = [record for record in group if record["status"] == "ok"]
    yield "\n".join(
        f"- `{r['method']}`: weights sha256 {r['weights_sha256']}"
        for r in measured
        if r["weights_sha256"]
    )
    yield "\n".join(
        f"- `{r['method']}` is unavailable: {r['reason']}" for r in group if r["status"] != "ok"
    )
    yield "\n".join(
        f"- `{r['method']}` failed on: {shortened(r['failures'])}"
        for r in measured
        if r["failures"]
    )


def shortened(failures: Sequence[str]) -> str:
    more = f" and {len(failures) - 5} more" if len(failures) > 5 else ""
    return "; ".join(failures[:5]) + more


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def markdown_table(lines: Iterable[Sequence[str]]) -> str:
    """Lines of cells, the head and what is below its cells first, as a table."""
    return "".join(f"{_row(line)}\n" for line in lines)


def comma_separated(records: Sequence[Record]) -> str:
    """CSV with every plain value of the records; nested ones are in ``results.json``."""
    return csv_text(
        [{k: v for k, v in r.items() if not isinstance(v, (dict, list))} for r in records]
    )


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a column for every name in any of the rows."""
    text = io.StringIO()
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
