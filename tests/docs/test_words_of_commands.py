"""Every command of every page is one that its program understands: no word of it is refused."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import matcher.batch.cli
import matcher.options
import matcher.program.match
import train
from eval import __main__ as eval_program
from matcher.program import command
from matcher.web import __main__ as web_program

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACES = {
    "NAME": "hpatches",
    "trainer.max_steps=STEPS": "trainer.max_steps=9",
    "K=[fx,fy,cx,cy]": "K=[520,520,319.5,239.5]",
}
"""What a reader puts in the place of words that are neither names nor paths of his."""
PROGRAMS = r"quadmatch|python (?:match|train)\.py|python -m (?:eval|matcher|benchmarks)[\w.]*"
COMMAND = re.compile(rf"^\s*((?:{PROGRAMS}) .*)$", re.MULTILINE)
HELP = [
    matcher.options.USAGE.format(command="quadmatch", options=""),
    matcher.batch.cli.USAGE.format(command="python match.py", options=""),
    eval_program.USAGE,
    web_program.USAGE,
    train.__doc__ or "",
]
"""Texts whose examples count too; what an example is for stands behind two spaces."""
PARSERS = ("options_from_words", "options_and_images", "plain_options", "read_options")
"""Functions that make options of words, whatever module they are imported into."""


class Understood(BaseException):
    """All words of a command line became options."""


def code_of(text: str) -> Iterator[str]:
    """Blocks of commands, and code within lines and tables."""
    fenced = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    yield from (body for language, body in fenced.findall(text) if language in ("", "bash", "sh"))
    yield from re.findall(r"`([^`\n]+)`", fenced.sub("", text))


def commands() -> list[str]:
    """Those of all pages, without comments and without lines that leave words out."""
    texts = [page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES]
    lines = [line for t in texts for code in code_of(t) for line in COMMAND.findall(code)]
    lines += [line.split("  ")[0] for text in HELP for line in COMMAND.findall(text)]
    whole = (line for line in lines if "..." not in line and "|" not in line)
    return sorted({" ".join(shlex.split(line, comments=True, posix=False)) for line in whole})


def stopping(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which ends the program once it is done."""

    def stop(*values: Any, **named: Any) -> Any:
        function(*values, **named)
        raise Understood

    return stop


def program_of(words: list[str]) -> tuple[Any, Callable[..., int], list[str]]:
    """The modules that make options of words, the program and its words."""
    if words[0] == "quadmatch":
        name = command.MODULES.get(words[1], "matcher.program.export_graph")
        return import_module(name), command.main, words[1:]
    if words[1] == "match.py":
        return matcher.program.match, lambda w: matcher.program.match.main(w, "m"), words[2:]
    if words[1] == "train.py":
        return train, train.main, words[2:]
    name = words[2]
    folder = (ROOT / name.replace(".", "/")).is_dir()
    module = import_module(f"{name}.__main__" if folder else name)
    return module, module.main, words[3:]


@pytest.mark.parametrize("line", commands())
def test_no_word_of_a_command_is_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, main, words = program_of([PLACES.get(word, word) for word in shlex.split(line)])
    monkeypatch.chdir(tmp_path)
    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stopping(parse))
    monkeypatch.setattr(train, "only_writer", stopping(train.only_writer))
    for place in (module, matcher.program.match, matcher.batch.cli):
        for name in PARSERS:
            if hasattr(place, name):
                monkeypatch.setattr(place, name, stopping(getattr(place, name)))
    try:
        code = main(words)
    except Understood:
        return
    told = capsys.readouterr()
    # Of a file that is not there a program tells once it understood the words.
    assert code == 0 or told.err.startswith(("E111", "E208")), told.err


def test_the_commands_of_all_pages_are_seen() -> None:
    programs = {" ".join(line.split()[:2]) for line in commands()}
    assert {"quadmatch a.jpg", "quadmatch pairs", "python match.py", "python train.py"} <= programs
    assert len(commands()) > 90


@pytest.mark.parametrize("name", ["focal_length", "localization", "reconstruction"])
def test_a_measurement_without_its_folders_says_so(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = import_module(f"benchmarks.{name}").main
    assert main(["nowhere"]) == 2
    assert main(["nowhere", "nothing"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in told] == ["E203", "E111"]
