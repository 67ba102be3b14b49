"""Lines of ours beside those of other packages: the commands do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import pytest
from PIL import Image

from matcher.program import command

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "coming_from.md"
COMMANDS = re.findall(r"\| `quadmatch ([^`]*)` \|", PAGE.read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shifted cuts of a photograph as a folder, and a list of pairs."""
    photo = Image.open(ROOT / "assets" / "demo0.jpg").convert("L").resize((320, 240))
    (tmp_path / "photos").mkdir()
    for number in range(3):
        x, y = 16 * number, 8 * number
        photo.crop((x, y, x + 160, y + 128)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "pairs.txt").write_text("0.png 1.png\n1.png 2.png\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_a_command_for_each_of_the_others() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_of_the_page_writes_what_it_says(words: str, folder: Path) -> None:
    assert command.main([*words.split(), "offline=true"]) == 0
    (run,) = re.findall(r"output=(\w+)", words)
    if "hloc" in words:
        with h5py.File(folder / run / "features.h5") as features:
            assert set(features) <= {"0.png", "1.png", "2.png"}
            assert len(features) > 1
        with h5py.File(folder / run / "matches.h5") as matches:
            assert len(matches) > 0
    else:
        assert (folder / run / "colmap" / "database.db").stat().st_size > 0
