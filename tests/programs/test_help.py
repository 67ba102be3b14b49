"""Every program tells what it does when it is asked for help, and does nothing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from matcher.terminal.program import program

PROGRAMS = [
    "match", "train", "eval.__main__", "eval.attention_kinds.__main__", "eval.classification",
    "eval.detection", "eval.quality", "eval.routing_recall", "eval.stereo", "eval.topk_recall",
    "eval.unrelated", "data.preview", "data.real.convert_index", "docs.make_configuration",
    "docs.make_figures", "docs.make_tables", "matcher.web.__main__", "matcher.weights.__main__",
    "matcher.tasks.stereo.__main__", "matcher.tasks.detection.__main__",
    "matcher.tasks.classification.__main__", "benchmarks.__main__", "benchmarks.against",
    "benchmarks.against_speed", "benchmarks.feature_cache", "benchmarks.generation",
    "benchmarks.pyramid", "benchmarks.query_points", "benchmarks.reconstruction",
    "benchmarks.refinement", "benchmarks.stereo_rows", "benchmarks.training_step",
    "benchmarks.walk", "benchmarks.detection", "benchmarks.distorted_cameras",
    "benchmarks.focal_length", "benchmarks.localization",
    "benchmarks.localization_ranking", "benchmarks.onnx",
    "eval.attention_kinds.focus", "eval.attention_kinds.matchers", "eval.backbone_matches",
    "eval.retrieval", "eval.stereo_kinds", "eval.turns", "matcher.program.published_data",
    "matcher.tasks.localization.__main__",
]  # fmt: skip
STARTED_BY_OTHERS = {
    "benchmarks.predict_pairs", "benchmarks.time_pairs", "benchmarks.time_steps",
    "quadmatch.__main__",
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def test_every_program_is_asked() -> None:
    folders = ("benchmarks", "data", "docs", "eval", "matcher", "quadmatch")
    files = [*ROOT.glob("*.py"), *(path for f in folders for path in (ROOT / f).rglob("*.py"))]
    programs = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in files
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert programs == {*PROGRAMS, *STARTED_BY_OTHERS}


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
    starts = f"{last}.py", f"-m {name.removesuffix('.__main__')}", "usage: quadmatch "
    assert any(start in told.out for start in starts)


def test_a_program_without_the_words_it_needs_tells_its_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = program("usage: word", needs_words=True)(lambda words: len(words) - 1)
    assert main([]) == 2
    assert capsys.readouterr().out == "usage: word\n"
    assert main(["one"]) == 0
    assert capsys.readouterr().out == ""
