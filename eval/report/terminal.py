"""Results as a terminal of 100 columns shows them; all the rest is in the files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from eval.report.tables import COLUMNS, Record, cell, group_of, shortened

WIDTH = 100
LONGEST_NAME = 30


def summary_lines(records: Sequence[Record], timings: Sequence[Record]) -> list[str]:
    """A table for each dataset and protocol, of as many columns as fit, and what went wrong."""
    lines = []
    for key in dict.fromkeys(group_of(record) for record in records):
        group = [record for record in records if group_of(record) == key]
        times = {t["method"]: t for t in timings if group_of(t) == key}
        pairs = next((f", {r['pairs']} pairs" for r in group if r["status"] == "ok"), "")
        lines += ["", f"{key[0]}, protocol {key[1]}{pairs}", *_table(group, times), *_faults(group)]
    return lines


def _table(group: Sequence[Record], times: dict[str, Record]) -> list[str]:
    measured = [record for record in group if record["status"] == "ok"]
    columns = [["method", *(_name(record) for record in measured)]]
    last = [
        ["failed", *(str(len(record["failures"])) for record in measured)],
        ["s/pair", *(_seconds(times.get(record["method"])) for record in measured)],
    ]
    for title, key in COLUMNS.items():
        if any(key in record for record in measured):
            # Without the interval, which the files have.
            column = [title, *(cell(record, key).split(" [")[0] for record in measured)]
            if _width([*columns, column, *last]) <= WIDTH:
                columns.append(column)
    columns += last
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True) if measured else ()
    return [
        "  ".join(
            word.ljust(width) if i == 0 else word.rjust(width)
            for i, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(len, column)) for column in columns) + 2 * (len(columns) - 1)


def _name(record: Record) -> str:
    """The method; of a long path its end."""
    name = record["method"]
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def _seconds(time: Record | None) -> str:
    return "-" if time is None else f"{time['seconds_median']:.2f}"


def _faults(group: Sequence[Record]) -> list[str]:
    """Methods that are unavailable and pairs that failed, wrapped."""
    told = [f"{r['method']} is unavailable: {r['reason']}" for r in group if r["status"] != "ok"]
    for record in group:
        if record.get("failures"):
            told.append(f"{record['method']} failed on: {shortened(record['failures'])}")
    return [line for text in told for line in wrapped(text)]


def wrapped(text: str) -> list[str]:
    """Lines of a text within the width, those after the first set in."""
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
