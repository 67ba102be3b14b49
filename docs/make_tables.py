"""Write the accuracy of the bundled weights into README.md and docs/model_card.md.

python -m docs.make_tables RESULTS.json [RESULTS.json ...]

These are the ``results.json`` of `python -m eval` with ``protocol=poselib``. Tells the rows that it
wrote, and those whose figures were not among them, which stay as they are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matcher.errors import Code, UsageError
from matcher.files import read_text, write_atomically
from matcher.terminal.program import program

ROOT = Path(__file__).resolve().parents[1]
KEYS = "auc5", "auc10", "auc20"
REAL = "strecha", "redkitchen", "views"
README, CARD = "README.md", "docs/model_card.md"


class Row(NamedTuple):
    """A row of a table: AUC@5, @10 and @20 on datasets."""

    page: str
    label: str
    """How its first cell begins"""
    datasets: tuple[str, ...]
    method: str
    refine: str = ""
    """Of the settings; empty: a method that has none"""
    zoom: str = "auto"
    """Of the settings, where they tell it"""
    joined: bool = False
    """One cell for a dataset instead of three"""


ROWS = (
    Row(README, "`compact`", REAL, "compact", "photometric", joined=True),
    Row(README, "the network alone", REAL, "compact", "none", "off", joined=True),
    Row(README, "ALIKED", REAL, "aliked", joined=True),
    Row(README, "XFeat", REAL, "xfeat", joined=True),
    Row(README, "RootSIFT", REAL, "rootsift", joined=True),
    Row(CARD, "strecha,", ("strecha",), "compact", "photometric"),
    Row(CARD, "redkitchen,", ("redkitchen",), "compact", "photometric"),
    Row(CARD, "wide,", ("wide",), "compact", "photometric"),
    Row(CARD, "the same without a closer look", ("wide",), "compact", "photometric", "off"),
    Row(CARD, "views,", ("views",), "compact", "photometric"),
    Row(CARD, "the same, `compact-1`", ("views",), "compact-1", "photometric"),
    Row(CARD, "the same, RootSIFT", ("views",), "rootsift"),
    Row(CARD, "the same, XFeat", ("views",), "xfeat"),
    Row(CARD, "the same, ALIKED", ("views",), "aliked"),
)

Record = dict[str, Any]


def cells_of(row: Row, records: Sequence[Record]) -> list[str] | None:
    """The figures of a row; None where a dataset is not among the records."""
    cells: list[str] = []
    for dataset in row.datasets:
        found = [record for record in records if _fits(record, row, dataset)]
        if not found:
            return None
        areas = [f"{found[-1][key]:.1f}" for key in KEYS]
        cells += [" / ".join(areas)] if row.joined else areas
    return cells


def _fits(record: Record, row: Row, dataset: str) -> bool:
    settings = record.get("settings", {})
    how = settings.get("refine", ""), settings.get("zoom", row.zoom)
    named = (record["dataset"], record["method"], record["protocol"])
    return named == (dataset, row.method, "poselib") and how == (row.refine, row.zoom)


def with_cells(text: str, row: Row, cells: Sequence[str]) -> str:
    """The page with other figures in a row, which must be there once."""
    pattern = rf"^(\| {re.escape(row.label)}[^|]*\|)" + r"[^|\n]*\d[^|\n]*\|" * len(cells)
    text, count = re.subn(
        pattern, lambda line: f"{line[1]} {' | '.join(cells)} |", text, flags=re.MULTILINE
    )
    if count != 1:
        raise ValueError(f"{row.page}: {count} rows {row.label!r}, not one")
    return text


def read_records(path: str) -> list[Record]:
    """What an evaluation wrote; `UsageError` where there is no file (E111) or another (E112)."""
    try:
        records = json.loads(read_text(path, "file of results"))
        if not all({"status", "dataset", "method", "protocol"} <= {*record} for record in records):
            raise ValueError("entries lack a status, a dataset, a method or a protocol")
    except (ValueError, TypeError) as error:
        raise UsageError(Code.UNREADABLE_LIST, path, f"holds no results: {error}") from error
    return records


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    records = [record for word in words for record in read_records(word)]
    for row in ROWS:
        cells = cells_of(row, [record for record in records if record["status"] == "ok"])
        if cells is not None:
            page = ROOT / row.page
            text = with_cells(page.read_text(encoding="utf-8"), row, cells)
            write_atomically(page, text.encode())
        done = "not among the results" if cells is None else ", ".join(cells)
        sys.stdout.write(f"{row.page}: {row.label} {done}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
