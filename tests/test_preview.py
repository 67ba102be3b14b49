"""The sheet of training pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
from miniature import megadepth_tree

from data.preview import main as preview


def test_unreadable_samples_are_noted_beside_the_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = megadepth_tree(tmp_path / "mega")
    next(root.rglob("0000/images/0.jpg")).write_bytes(b"damaged")
    here, out = tmp_path / "here", tmp_path / "out"
    here.mkdir()
    out.mkdir()
    monkeypatch.chdir(here)
    files = {
        "root": root / "test",
        "index": root / "index",
        "scenes": root / "index" / "list.txt",
        "framing.size": "[128,128]",
    }
    words = [f"data.files.{key}={value}" for key, value in files.items()]
    assert preview([f"output={out}/sheet.png", "count=2", "data=megadepth", *words]) == 0
    assert "0.jpg" in (out / "sheet_corrupt.txt").read_text()
    assert list(here.iterdir()) == []
