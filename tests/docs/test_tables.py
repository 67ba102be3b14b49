"""Tables of the documentation that a command fills with the results of evaluations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from docs import make_configuration, make_figures, make_tables
from docs.make_tables import README, ROWS, cells_of, main, with_cells


def record(dataset: str, method: str, first: float, **settings: str) -> dict[str, Any]:
    areas = {"auc5": first, "auc10": first + 1, "auc20": first + 2}
    named = {"dataset": dataset, "method": method, "protocol": "poselib", "status": "ok"}
    return named | areas | {"settings": settings}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.page}-{row.label}")
def test_every_row_is_in_its_page_once_and_nothing_else_changes(row: make_tables.Row) -> None:
    text = (make_tables.ROOT / row.page).read_text(encoding="utf-8")
    cells = ["7.0 / 8.0 / 9.0"] * len(row.datasets) if row.joined else ["7.0", "8.0", "9.0"]
    lines = zip(text.splitlines(), with_cells(text, row, cells).splitlines(), strict=True)
    ((before, after),) = [line for line in lines if line[0] != line[1]]
    assert before.count("|") == after.count("|")
    assert all(cell in after for cell in cells)


def test_the_last_result_with_the_settings_of_a_row_counts() -> None:
    records = [
        record("strecha", "compact", 90.0, refine="photometric"),
        record("strecha", "compact", 80.0, refine="none"),
        record("strecha", "compact", 91.04, refine="photometric"),
    ]
    of_card = next(row for row in ROWS if row.label == "strecha,")
    assert cells_of(of_card, records) == ["91.0", "92.0", "93.0"]
    of_readme = next(row for row in ROWS if row.page == README)
    assert cells_of(of_readme, records) is None
    records.append(record("redkitchen", "compact", 20.0, refine="photometric"))
    records.append(record("views", "compact", 30.0, refine="photometric"))
    cells = ["91.0 / 92.0 / 93.0", "20.0 / 21.0 / 22.0", "30.0 / 31.0 / 32.0"]
    assert cells_of(of_readme, records) == cells


def test_the_program_writes_what_it_was_given_and_tells_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    for page in {row.page for row in ROWS}:
        text = (make_tables.ROOT / page).read_text(encoding="utf-8")
        (tmp_path / page).write_text(text, encoding="utf-8")
    monkeypatch.setattr(make_tables, "ROOT", tmp_path)
    results = tmp_path / "results.json"
    results.write_text(json.dumps([record("views", "rootsift", 12.3)]))
    assert main([str(results)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert sum("not among the results" in line for line in told) == len(ROWS) - 1
    card = (tmp_path / "docs" / "model_card.md").read_text(encoding="utf-8")
    assert "| 12.3 | 13.3 | 14.3 |" in card
    assert main([str(tmp_path / "absent.json")]) == 2


@pytest.mark.parametrize("content", ["x", "[1]", "{}x", '[{"status": "ok"}]', '{"a": 1}'])
def test_what_holds_no_results_is_told_in_a_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text(content)
    assert make_tables.main([str(tmp_path / "results.json")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("E112 ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("program", [make_configuration.main, make_figures.main])
def test_programs_without_options_take_no_words(program: Callable[[list[str]], int]) -> None:
    assert program(["figures"]) == 2
