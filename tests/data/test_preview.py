"""The sheet of training pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.datamodule import build_datamodule
from data.preview import first_pairs
from data.preview import main as preview
from tests.helpers.miniature import megadepth_tree


def test_the_sheet_shows_the_pairs_as_a_run_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = megadepth_tree(tmp_path / "mega")
    index = root / "index"
    monkeypatch.chdir(tmp_path)
    shown = {}
    for strength in (0.0, 1.0):
        files = {
            "root": str(root / "test"),
            "index": str(index),
            "scenes": str(index / "list.txt"),
            "framing": {"size": [128, 128]},
            "augment": strength,
        }
        values = {"source": "megadepth", "batch_size": 2, "files": files}
        data = build_datamodule(values, seed=0)
        shown[strength] = first_pairs(data, tmp_path / "corrupt.txt")
        trained = next(iter(data.train_dataloader()))
        assert torch.equal(shown[strength].image0, trained.image0)
    assert shown[0.0].names == shown[1.0].names
    assert not torch.equal(shown[0.0].image0, shown[1.0].image0)


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
