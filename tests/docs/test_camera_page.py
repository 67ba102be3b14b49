"""What docs/cameras.md says of tables and lenses; its commands are run in `test_commands`."""

from __future__ import annotations

import re
from pathlib import Path

from matcher.geometry.lenses import LENSES
from matcher.images.cameras import read_cameras

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cameras.md").read_text("utf-8")


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
