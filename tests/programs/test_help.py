"""Every program tells what it does when it is asked for help, and does nothing."""

from __future__ import annotations

from importlib import import_module

import pytest

PROGRAMS = [
    "match", "train", "eval.__main__", "eval.stereo", "eval.topk_recall", "data.preview",
    "data.real.convert_index", "matcher.web.__main__", "matcher.tasks.stereo.__main__",
    "matcher.weights.__main__", "benchmarks.__main__", "benchmarks.against",
    "benchmarks.generation", "benchmarks.walk", "benchmarks.reconstruction",
    "benchmarks.feature_cache", "benchmarks.query_points",
]  # fmt: skip


@pytest.mark.parametrize("word", ["--help", "-h"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_help_is_told(name: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = import_module(name).main([word])
    except SystemExit as leaving:
        code = leaving.code
    told = capsys.readouterr()
    assert code == 0
    assert len(told.out) > 100
    assert told.err == ""
    last = name.removesuffix(".__main__").rpartition(".")[2]
    assert f"{last}.py" in told.out or f"-m {name.removesuffix('.__main__')}" in told.out
