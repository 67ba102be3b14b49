"""The commands of docs/cameras.md are words that the programs take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from matcher.batch.options import CollectionOptions
from matcher.geometry.lenses import LENSES
from matcher.images.cameras import read_cameras
from matcher.options import MatchOptions
from matcher.program.command import match_words
from matcher.tasks.localization.options import LocalizationOptions
from matcher.validation.words import options_from_words

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cameras.md").read_text("utf-8")
COMMANDS = re.findall(r"^quadmatch .*$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_taken(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "localize":
        assert options_from_words(LocalizationOptions, [f"query={words[1]}", *words[2:]])
    elif words[0] == "pairs":
        assert options_from_words(CollectionOptions, match_words(words))
    else:
        assert options_from_words(MatchOptions, words[2:]).geometry == "pose"


def test_all_commands_are_seen() -> None:
    assert len(COMMANDS) == 9


def test_the_table_is_one(tmp_path: Path) -> None:
    table = re.search(r"```\n(left,.*?)```", PAGE, re.DOTALL)
    assert table is not None
    (tmp_path / "cameras.csv").write_text(table[1])
    found = read_cameras(str(tmp_path / "cameras.csv"))
    assert found is not None
    assert found.find("left/wide/a.jpg", (640, 480)).camera.model == "OPENCV_FISHEYE"
    assert not found.find("phone/a.jpg", (640, 480)).camera.focal_known


def test_every_lens_is_named() -> None:
    assert all(f"`{name}`" in PAGE for name in LENSES)
