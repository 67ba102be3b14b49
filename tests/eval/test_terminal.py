"""What an evaluation prints: a usage without words, tables within 100 columns."""

from __future__ import annotations

import pytest

from eval.__main__ import main
from eval.report.tables import COLUMNS, COUNTS
from eval.report.terminal import WIDTH, summary_lines


def record(method: str, **more: object) -> dict[str, object]:
    values = {key: 1234.5 if key in COUNTS else 0.5 for key in COLUMNS.values()}
    areas = {f"{key}_{end}": 99.9 for key in values for end in ("low", "high") if "auc" in key}
    what = {"method": method, "dataset": "strecha", "protocol": "poselib", "status": "ok"}
    return {**what, **values, **areas, "pairs": 77, "failures": [], **more}


def timing(method: str) -> dict[str, object]:
    return {"method": method, "dataset": "strecha", "protocol": "poselib", "seconds_median": 0.25}


def test_a_table_of_all_columns_fits_a_terminal():
    path = f"runs/{'deeply/' * 20}best.safetensors"
    failures = [f"{'images/of/a/folder/' * 5}{i}.png: no estimate" for i in range(9)]
    records = [record("compact", failures=failures), record(path)]
    records.append({**record("kornia_disk"), "status": "unavailable", "reason": "not there " * 30})
    lines = summary_lines(records, [timing("compact"), timing(path)])
    assert max(map(len, lines)) <= WIDTH == 100
    head, first, second = lines[2:5]
    assert head.split()[:2] == ["method", "AUC@5"]
    assert head.endswith("failed  s/pair")
    assert first.split()[0] == "compact"
    assert first.endswith("9    0.25")
    assert second.startswith("...")
    assert "best.safetensors" in second
    assert len({len(line) for line in (head, first, second)}) == 1
    text = "\n".join(lines)
    assert "kornia_disk is unavailable" in text
    assert "and 4 more" in text


def test_a_group_without_a_measured_method_has_no_table():
    absent = {**record("kornia_disk"), "status": "unavailable", "reason": "not fetched"}
    lines = summary_lines([absent], [])
    assert lines[1:] == ["strecha, protocol poselib", "kornia_disk is unavailable: not fetched"]


def test_without_words_the_usage_is_shown(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: python -m eval benchmark=NAME")


@pytest.mark.parametrize(
    "word", ["keypoints", "threads", "workers", "seed", "benchmark.max_side", "ransac_threshold"]
)
def test_numbers_beyond_any_use_are_one_line(word: str, capsys: pytest.CaptureFixture[str]):
    assert main(["benchmark=warps", f"{word}=1{'0' * 30}"]) == 2
    error = capsys.readouterr().err
    assert f"E201 {word}" in error
    assert error.count("\n") == 1
