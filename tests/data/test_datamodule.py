"""The data of a run: the same pairs wherever it starts, sizes that ramp, every source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from conf import compose
from data.classification import ClassificationDataConfig
from data.config import DataConfig, FilesConfig
from data.datamodule import PairData, build_datamodule
from data.detection import DetectionDataConfig
from data.preview import contact_sheet
from data.preview import main as preview
from data.real.sources import validation_pairs
from data.stereo import StereoDataConfig
from matcher.errors import UsageError
from matcher.structures import ImagePair
from matcher.training.supervision import supervise
from matcher.validation.checked import config_from_dict
from tests.helpers.miniature import megadepth_tree, scannet_tree

SMALL: dict[str, Any] = {
    "batch_size": 2,
    "synthetic": {"size": [64, 96], "pairs": 5, "texture_side": 64, "procedural": 9},
}


def at_pair(data: PairData, seen: int, folder: Path | None = None) -> PairData:
    """The data as a trainer sees it after `seen` pairs."""
    data.trainer = SimpleNamespace(  # pyright: ignore
        lightning_module=SimpleNamespace(pairs_seen=seen, first_pair=seen),
        global_rank=0,
        world_size=1,
        training=True,
        default_root_dir=str(folder or "."),
    )
    return data


def batches(data: PairData, count: int) -> list[ImagePair]:
    loader = iter(data.train_dataloader())
    return [data.on_after_batch_transfer(next(loader), 0) for _ in range(count)]


def test_a_run_that_starts_later_sees_what_an_earlier_one_would_have_seen() -> None:
    whole = batches(at_pair(build_datamodule(SMALL, 1), 0), 4)
    rest = batches(at_pair(build_datamodule(SMALL, 1), 4), 2)
    for one, other in zip(whole[2:], rest, strict=True):
        assert one.names == other.names
        assert torch.equal(one.image1, other.image1)
    assert whole[2].names[1][0].endswith("/1/0/0")


def test_validation_shows_other_scenes_always_the_same() -> None:
    data = at_pair(build_datamodule({**SMALL, "val_pairs": 2}, 1), 0)
    first, again = (next(iter(data.val_dataloader())) for _ in range(2))
    assert torch.equal(first.rects, again.rects)
    trained = next(iter(data.train_dataloader()))
    assert first.rects.shape != trained.rects.shape or not torch.equal(first.rects, trained.rects)


def test_pictures_grow_with_the_pairs_seen() -> None:
    values = {**SMALL, "ramp": [[100, 96, 128], [200, 128, 160]]}
    data = build_datamodule(values, 1)
    assert [data.size_at(n) for n in (0, 99, 100, 500)] == [
        (64, 96), (64, 96), (96, 128), (128, 160)
    ]  # fmt: skip
    assert batches(at_pair(data, 100), 1)[0].image0.shape == (2, 1, 96, 128)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"source": "megadeth"}, "megadepth"),
        ({"ramp": [[0, 100, 100]]}, "data.ramp"),
        ({"ramp": [[9, 64, 64], [1, 64, 64]]}, "data.ramp"),
        ({"workers": -1}, "data.workers"),
        ({"bach_size": 1}, "batch_size"),
        ({"source": "colmap", "ramp": [[9, 64, 64]]}, "data.ramp.*expected .. beside data.source"),
        ({"real_share": 0.5}, "data.real_share.*expected 0.25 beside data.real=null"),
        ({"synthetic": {"photo_limit": 9}}, "data.synthetic.photo_limit.*expected null beside"),
        ({"source": "megadepth", "files": {"val_frames": [0, 5]}}, "data.files.val_frames"),
        ({"source": "colmap", "files": {"val_scenes": "x"}}, "data.files.val_scenes"),
        ({"source": "rgbd", "files": {"val_index": "x"}}, "data.files.val_index"),
        ({"source": "megadepth", "files": {"exclude": ["a"]}}, "data.files.exclude"),
        ({"source": "colmap", "files": {"frames": [0, 5]}}, "data.files.frames"),
        ({"real": "rgbd", "files": {"pairs": "x"}}, "data.files.pairs.*: rgbd reads root"),
        ({"files": {"root": "x"}}, "data.files.root.*: synthetic reads no files"),
        ({"files": {"augment": 1.0}}, "data.files.augment.*: synthetic"),
        ({"val_pairs": 0}, "data.val_pairs"),
    ],
)
def test_impossible_options_are_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        build_datamodule({**SMALL, **change}, 1)


@pytest.mark.parametrize(
    "kind", [DataConfig, StereoDataConfig, DetectionDataConfig, ClassificationDataConfig]
)
def test_loader_processes_that_bring_a_machine_down_are_refused(kind: type) -> None:
    with pytest.raises(UsageError, match=r"E201 data\.workers: got 257"):
        config_from_dict(kind, {"workers": 257})


@pytest.mark.parametrize("source", ["synthetic", "megadepth", "scannet", "rgbd", "colmap"])
def test_the_configuration_of_every_source_is_valid(source: str) -> None:
    values = compose("train", [f"data={source}"])["data"]
    assert config_from_dict(DataConfig, values).source == source


def test_megadepth_trains_through_the_same_path(tmp_path: Path) -> None:
    root = megadepth_tree(tmp_path / "mega")
    index = str(root / "index")
    values = {
        "source": "megadepth",
        "batch_size": 2,
        "files": {
            "root": str(root / "test"),
            "index": index,
            "scenes": f"{index}/list.txt",
            "val_scenes": f"{index}/list.txt",
            "framing": {"size": [128, 128]},
        },
    }
    data = at_pair(build_datamodule(values, 1), 0, tmp_path)
    pair = batches(data, 1)[0]
    assert pair.image0.shape == (2, 1, 128, 128)
    assert len(supervise(pair, stride=8, reach=6.0)[0].batch) > 20
    assert len(next(iter(data.val_dataloader())).names) == 2
    next(root.rglob("images/0.jpg")).write_bytes(b"damaged")
    assert len(batches(data, 1)[0].names) == 2
    assert "0.jpg" in (tmp_path / "corrupt_training.txt").read_text()


def test_scannet_trains_through_the_same_path(tmp_path: Path) -> None:
    root = scannet_tree(tmp_path / "scannet", flat_intrinsics=True)
    (root / "list.txt").write_text("scene0000_00.npz\nscene0001_01.npz\n")
    values = {
        "source": "scannet",
        "files": {
            "root": str(root),
            "index": str(root / "index"),
            "scenes": str(root / "list.txt"),
            "intrinsics": str(root / "index" / "intrinsics.npz"),
            "overlap": [0.4, 1.0],
            "framing": {"size": [120, 160], "keep_aspect": False},
        },
        "batch_size": 2,
    }
    pair = batches(at_pair(build_datamodule(values, 1), 0, tmp_path), 1)[0]
    assert len(supervise(pair, stride=8, reach=6.0)[0].batch) > 20


def test_a_source_without_its_paths_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"data\.files\.index"):
        build_datamodule({"source": "megadepth"}, 1).train_dataloader()


@pytest.mark.parametrize(
    ("source", "option", "named"),
    [
        ("colmap", "val_index", "elsewhere.*no such file"),
        ("megadepth", "val_index", r"data\.files\.val_scenes: is not set"),
        ("scannet", "val_intrinsics", r"data\.files\.val_scenes: is not set"),
    ],
)
def test_one_option_of_validation_is_enough_to_count(
    tmp_path: Path, source: str, option: str, named: str
) -> None:
    files = FilesConfig(root=str(tmp_path), index=str(tmp_path))
    assert validation_pairs(source, files) is None
    with pytest.raises(UsageError, match=named):
        validation_pairs(source, replace(files, **{option: str(tmp_path / "elsewhere")}))


def test_a_sheet_shows_each_pair_with_its_matches(tmp_path: Path) -> None:
    pair = batches(at_pair(build_datamodule(SMALL, 1), 0), 1)[0]
    sheet = contact_sheet(pair, columns=1)
    assert sheet.shape == (128, 192, 3)
    assert (sheet[..., 0] != sheet[..., 2]).sum() > 100
    assert preview(["count=2"]) == 2
    small = [f"data.synthetic.{key}={value}".replace(" ", "") for key, value in
             SMALL["synthetic"].items() if key in ("size", "pairs")]  # fmt: skip
    assert preview([f"output={tmp_path}/sheet.png", "count=2", *small]) == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"synthetic": {**SMALL["synthetic"], "size": [120, 160]}}, "data.synthetic.size"),
        ({"ramp": [[10, 200, 256]]}, "data.ramp"),
    ],
)
def test_sizes_that_the_model_cannot_take_are_named(change: dict, option: str):
    with pytest.raises(UsageError, match=f"E201 {option}: .* multiples of 32"):
        build_datamodule({**SMALL, **change}, 1, canvas=32)
