"""A function of the user as a method: what is wrong with it is told in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.__main__ import main
from tests.helpers.eval_folders import pairs_folder

SOURCE = """
def no_matches(a, b): return [], [], []
def failing(a, b): return {}["depth"]
def starving(a, b): raise MemoryError("out of memory")
"""


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    """Runs a method of modules that lie there; exit code and what was said."""
    root = pairs_folder(tmp_path / "pairs", 1)
    (tmp_path / "functions_of_test.py").write_text(SOURCE)
    (tmp_path / "fails_of_test.py").write_text("1 / 0")
    (tmp_path / "unfinished_of_test.py").write_text("x = (")
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(method: str) -> tuple[int, str]:
        words = ["benchmark=pairs", f"root={root}", f"output={tmp_path / 'out'}", "report=false"]
        return main([*words, f"method={method}"]), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("method", "what"),
    [
        (":match", "cannot be imported: ValueError"),
        (".module:match", "cannot be imported: TypeError"),
        ("fails_of_test:match", "cannot be imported: ZeroDivisionError"),
        ("unfinished_of_test:match", "cannot be imported: SyntaxError"),
        ("functions_of_test:", "cannot be imported: AttributeError"),
        ("functions_of_test:no_matches", "returned tuple, not matcher.Matches"),
        ("functions_of_test:failing", "failed: KeyError: 'depth'"),
    ],
)
def test_a_function_that_cannot_be_used_is_one_line(told, method: str, what: str) -> None:
    code, error = told(method)
    assert code == 2
    assert error.startswith(f"E211 {method}: {what}")
    assert error.count("\n") == 1


def test_want_of_memory_stays_the_failure_of_a_pair(told) -> None:
    assert told("functions_of_test:starving")[0] == 0
