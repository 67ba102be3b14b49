"""The table of error codes in the documentation is that of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from matcher.errors import Code, ImageError, UsageError

ROOT = Path(__file__).parents[2]


def test_the_documented_codes_are_those_of_the_program() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"(?m)^\| E(\d+) \| (.+) \|$", text)
    assert rows == [(str(int(code)), code.meaning) for code in Code]


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_used(code: Code) -> None:
    places = [*(ROOT / "matcher").rglob("*.py"), *(ROOT / "data").rglob("*.py")]
    places += [*(ROOT / "eval").rglob("*.py"), *(ROOT / "conf").rglob("*.py")]
    places += [ROOT / "match.py", ROOT / "train.py"]
    assert any(re.search(rf"\bCode\.{code.name}\b", path.read_text()) for path in places)


def test_a_message_shows_the_number() -> None:
    assert str(UsageError(Code.MISSING_FILE, "a.jpg", "no such file")) == "E111 a.jpg: no such file"
    assert ImageError(Code.LARGE_IMAGE, "a.jpg", "too large").code == 103
