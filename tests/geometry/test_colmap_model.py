"""Models of COLMAP that are cut off never reach pycolmap, which would read on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from matcher.batch.neighbors import read_model
from matcher.errors import UsageError
from matcher.images.cameras import read_cameras
from matcher.tasks.localization.scene import read_scene


@pytest.fixture
def cut(tmp_path: Path) -> str:
    """A binary model whose files say that a thousand entries follow, and end there."""
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"{name}.bin").write_bytes((1000).to_bytes(8, "little"))
    return str(tmp_path)


@pytest.mark.parametrize("read", [read_model, read_cameras, lambda folder: read_scene(folder, "")])
def test_a_model_that_is_cut_off_is_refused(cut: str, read: Callable[[str], object]) -> None:
    with pytest.raises(UsageError, match=r"E112 .*cameras.bin is cut off"):
        read(cut)
