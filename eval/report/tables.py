"""Results as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]

POSE = {
    "AUC@5": "auc5",
    "AUC@10": "auc10",
    "AUC@20": "auc20",
    "mAA@10": "maa10",
    "P 5e-4": "precision_5e4",
    "P 1e-4": "precision_1e4",
}
HOMOGRAPHY = {
    "corner AUC@3": "corner_auc3",
    "corner AUC@5": "corner_auc5",
    "corner AUC@10": "corner_auc10",
    "median corner px": "corner_error_median",
    "below 3 px": "corner_below_3px",
    "MMA@1": "accuracy_1px",
    "MMA@3": "accuracy_3px",
    "MMA@5": "accuracy_5px",
}
SCENE = {
    "EPE px": "epe_median",
    "precision@1": "precision_1px",
    "precision@3": "precision_3px",
    "precision@5": "precision_5px",
    "recall@1": "recall_1px",
    "recall@3": "recall_3px",
    "recall@5": "recall_5px",
}
COMMON = {"matches": "matches", "inliers": "inliers"}
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
        parts += [_breakdowns(measured), _weights(measured), _absent(group), _failures(measured)]
    return "\n\n".join(part for part in parts if part) + "\n"


def group_of(record: Record) -> tuple[str, str]:
    return record["dataset"], record["protocol"]


def statement(record: Record) -> str:
    """The protocol of a record in words."""
    facts = [
        f"{record['pairs']} pairs",
        f"{record['estimator']} ({record['model']}), threshold {record['threshold']:g} "
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


def command(words: Sequence[str]) -> str:
    return f"python -m eval {shlex.join(words)}"


def _table(group: Sequence[Record], times: dict[str, Record]) -> str:
    columns = {
        title: key
        for title, key in {**POSE, **HOMOGRAPHY, **SCENE, **COMMON}.items()
        if any(key in record for record in group)
    }
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
    return f"{value:.0f}" if key in COMMON.values() else f"{value:.1f}"


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


def _weights(group: Sequence[Record]) -> str:
    return "\n".join(
        f"- `{r['method']}`: weights sha256 {r['weights_sha256']}"
        for r in group
        if r["weights_sha256"]
    )


def _absent(group: Sequence[Record]) -> str:
    return "\n".join(
        f"- `{r['method']}` is unavailable: {r['reason']}" for r in group if r["status"] != "ok"
    )


def _failures(group: Sequence[Record]) -> str:
    lines = []
    for record in group:
        shown, total = record["failures"][:5], len(record["failures"])
        if total:
            more = f" and {total - 5} more" if total > 5 else ""
            lines.append(f"- `{record['method']}` failed on: {'; '.join(shown)}{more}")
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def comma_separated(records: Sequence[Record]) -> str:
    """CSV with every plain value of the records; nested ones are in ``results.json``."""
    plain = [
        {k: v for k, v in record.items() if not isinstance(v, (dict, list))} for record in records
    ]
    names = list(dict.fromkeys(name for record in plain for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue()
