"""The command `quadmatch`: which program its words start, and with what."""

from __future__ import annotations

from pathlib import Path

import pytest

import quadmatch
from matcher.program import command
from tests.programs.test_startup import HEAVY, loaded_after

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ("match a.jpg b.jpg top_k=5", "a.jpg b.jpg top_k=5"),
        ("a.jpg b.jpg", "a.jpg b.jpg"),
        ("match pairs a.jpg", "pairs a.jpg"),
        ("pairs photos output=run", "pairs=photos output=run"),
        ("pairs=photos output=run", "pairs=photos output=run"),
        ("pack run", "pack=run"),
        ("verify run", "verify=run"),
        ("export colmap photos output=run", "pairs=photos output=run export=colmap"),
        ("pairs", "pairs= --help"),
        ("pairs --help", "pairs= --help"),
        ("pack", "pack= --help"),
        ("export", "pairs= --help"),
        ("export colmap", "pairs= --help"),
    ],
)
def test_commands_are_words_of_the_matching_program(words: str, same: str) -> None:
    assert command.match_words(words.split()) == same.split()


@pytest.mark.parametrize(
    "name", ["stereo", "classify", "localize", "web", "weights", "pairs", "match", "pack"]
)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([name, "--help"]) == 0
    told = capsys.readouterr()
    assert "usage" in told.out
    assert told.err == ""


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert "quadmatch a.jpg b.jpg" in told
    assert "match.py" not in told
    for name in (*command.MODULES, "pairs", "export", "selftest", "pack", "verify"):
        assert f"quadmatch {name}" in told or f"`{name} RUN`" in told


def test_without_words_it_tells_its_usage_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "quadmatch stereo" in capsys.readouterr().out


def test_the_selftest_is_of_the_bundled_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["selftest"]) == 0
    assert "compact.safetensors: as when it was saved" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["eval", "train"])
def test_what_needs_a_checkout_says_so(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([name]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"E203 {name}: belongs to a checkout")
    assert err.count("\n") == 1


def test_help_of_the_command_loads_nothing_heavy() -> None:
    program = "from matcher.program import command; command.main({})"
    for words in (["--help"], ["pairs", "--help"], ["eval"]):
        assert not loaded_after(program.format(words)) & HEAVY


def test_the_package_has_what_the_library_has() -> None:
    assert not loaded_after("import quadmatch") & (HEAVY | {"numpy"})
    assert set(quadmatch.__all__) <= set(dir(quadmatch))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = quadmatch.nothing
