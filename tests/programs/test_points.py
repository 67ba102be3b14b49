"""The option points= of the program: single points instead of matches."""

from __future__ import annotations

from pathlib import Path

import pytest

import match

ROOT = Path(__file__).resolve().parents[2]
DEMO = [str(ROOT / "assets" / f"demo{i}.jpg") for i in (0, 1)]


def test_points_are_told_written_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("x,y\n320,240\n100.5,200\n")
    options = ("points=p.csv", "output=auto", "max_side=320", "rotate=off")
    assert match.main([*DEMO, *options]) == 0
    told = capsys.readouterr().out
    assert "point     (320, 240) -> (" in told
    assert " of 2 points" in told
    assert len(Path("demo0-demo1.csv").read_text().splitlines()) == 3
    assert Path("demo0-demo1.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("output=a.h5",), "E201 output: got 'a.h5'; expected a name ending in .csv with points="),
        (("geometry=homography",), "E201 geometry: got 'homography'; expected none with points="),
        (("style=coverage",), "E201 style: got 'coverage'; expected matches with points="),
        ((), "E111 none.csv: no such file"),
    ],
)
def test_what_only_matches_have_is_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert match.main([*DEMO, "points=none.csv", *words]) == 2
    assert capsys.readouterr().err.startswith(message)
