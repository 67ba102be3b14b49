"""MegaDepth and ScanNet in LoFTR's layout, on miniature trees of rendered pairs."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Container
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from data.config import Framing
from data.corrupt import Replacing, coprime_stride
from data.order import PairStream, SceneBalanced
from data.real.convert_index import convert, main
from data.real.index import read_arrays, read_scannet_index, read_scene_index
from data.real.megadepth import MegaDepthPairs, listed_indices
from data.real.readers import make_view, read_depth, resample_depth
from data.real.scannet import ScanNetPairs
from data.synthetic.photos import list_photos
from matcher.errors import ImageError, StorageError, UsageError
from matcher.training.supervision import supervise
from tests.helpers.geometry import gray_error
from tests.helpers.miniature import megadepth_tree, objects, scannet_tree

FRAMING = Framing((96, 128), multiple=8)


@pytest.fixture(scope="module")
def mega(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return megadepth_tree(tmp_path_factory.mktemp("trees") / "mega")


@pytest.fixture(scope="module")
def scannet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scannet_tree(tmp_path_factory.mktemp("trees") / "scannet")


def indices(root: Path) -> list[Path]:
    return listed_indices(root / "index", root / "index" / "list.txt")


@pytest.mark.parametrize("own_images", [False, True])
def test_megadepth_pairs_carry_pixels_to_the_same_gray(tmp_path: Path, own_images: bool) -> None:
    root = megadepth_tree(tmp_path / "mega", own_images=own_images)
    pairs = MegaDepthPairs(root / "test", indices(root), framing=FRAMING)
    assert len(pairs) == 2
    for i in range(2):
        assert gray_error(pairs[i]) < 0.03


def test_megadepth_overlap_is_filtered(mega: Path) -> None:
    pairs = MegaDepthPairs(mega / "test", indices(mega), overlap=(0.4, 1.0), framing=FRAMING)
    assert pairs.counts == (0, 1)
    assert pairs[0].names[0][0].startswith("Undistorted_SfM/0001")


def test_padded_pictures_say_where_they_end(mega: Path) -> None:
    pair = MegaDepthPairs(mega / "test", indices(mega), framing=Framing((160, 160)))[0]
    assert pair.image0.shape == (1, 1, 160, 160)
    assert pair.mask0 is not None
    assert pair.mask0[0, :96, :160].all()
    assert not pair.mask0[0, 128:].any()
    assert pair.image0[0, 0][~pair.mask0[0]].abs().max() == 0
    rows = int(pair.mask0[0, :, 0].sum())
    torch.testing.assert_close(pair.scale0, torch.tensor([[128 / 160, 96 / rows]]))
    coarse, _ = supervise(pair, stride=8, reach=6.0)
    assert len(coarse.batch) > 20


def test_every_form_of_a_scene_index_reads_the_same(mega: Path, tmp_path: Path) -> None:
    path = indices(mega)[0]
    values = pickle.loads(path.read_bytes())
    values["pair_infos"] = objects(values["pair_infos"])
    np.savez(tmp_path / "saved.npz", **values)
    bare = read_scene_index(path)
    for other in (
        read_scene_index(tmp_path / "saved.npz"),
        read_scene_index(convert(path, tmp_path)),
    ):
        assert other.image_paths == bare.image_paths
        assert other.depth_paths == bare.depth_paths
        for name in ("intrinsics", "poses", "pairs", "overlap"):
            np.testing.assert_array_equal(getattr(other, name), getattr(bare, name))
    assert bare.image_paths[0] == ""
    assert b"numpy" not in (tmp_path / f"{path.stem}.h5").read_bytes()


def test_old_numpy_names_are_read(mega: Path, tmp_path: Path) -> None:
    path = indices(mega)[0]
    old = tmp_path / "old.npz"
    values = pickle.loads(path.read_bytes())
    data = pickle.dumps(values, protocol=3).replace(b"numpy._core.multi", b"numpy.core.multi")
    old.write_bytes(data)
    assert b"numpy.core.multiarray" in data
    np.testing.assert_array_equal(read_scene_index(old).pairs, read_scene_index(path).pairs)


class Hostile:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("/tmp/quadmatch_hostile_index",)


def test_a_hostile_index_runs_nothing(tmp_path: Path) -> None:
    bare = tmp_path / "bare.npz"
    bare.write_bytes(pickle.dumps({"image_paths": Hostile()}))
    saved = tmp_path / "saved.npz"
    np.savez(saved, image_paths=objects([Hostile()]))
    for path in (bare, saved):
        with pytest.raises(StorageError, match="mkdir"):
            read_scene_index(path)
    assert not Path("/tmp/quadmatch_hostile_index").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04junk", b"\x80\x04N.", b"\x89HDF\r\n\x1a\njunk"])
def test_a_damaged_index_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "damaged.npz"
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"damaged\.npz"):
        read_scene_index(path)


def test_the_converter_is_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = megadepth_tree(tmp_path / "mega")
    assert main([str(path) for path in indices(root)]) == 0
    assert [path.suffix for path in indices(root)] == [".h5", ".h5"]
    assert len(MegaDepthPairs(root / "test", indices(root), framing=FRAMING)) == 2
    assert main([str(tmp_path / "nowhere.npz")]) == 2
    assert "nowhere.npz" in capsys.readouterr().err


@pytest.mark.parametrize("flat", [False, True])
def test_scannet_pairs_carry_pixels_to_the_same_gray(tmp_path: Path, flat: bool) -> None:
    root = scannet_tree(tmp_path / "scannet", flat_intrinsics=flat)
    files = sorted((root / "index").glob("scene*.npz"))
    pairs = ScanNetPairs(root, files, root / "index" / "intrinsics.npz")
    assert pairs.counts == (1, 1)
    for i in range(2):
        assert pairs[i].image0.shape == (1, 1, 480, 640)
        assert gray_error(pairs[i]) < 0.03


def test_scannet_pose_equals_the_published_relative_pose(tmp_path: Path) -> None:
    root = scannet_tree(tmp_path / "scannet", score=False)
    path = root / "index" / "scene0000_00.npz"
    pairs = ScanNetPairs(root, [path], root / "index" / "intrinsics.npz")
    relative = read_arrays(path)["rel_pose"][0].reshape(3, 4)
    np.testing.assert_allclose(pairs.files(0).T_0to1[:3], relative, atol=1e-5)


def test_scannet_intrinsics_follow_the_stored_size(tmp_path: Path) -> None:
    root = scannet_tree(tmp_path / "scannet")
    files = sorted((root / "index").glob("scene*.npz"))
    pairs = ScanNetPairs(root, files, root / "index" / "intrinsics.npz")
    before = pairs[0]
    picture = root / "scene0000_00" / "color" / "0.jpg"
    large = cv2.resize(cv2.imdecode(np.fromfile(picture, np.uint8), 0), (1280, 960))
    cv2.imwrite(str(picture), large)
    after = pairs[0]
    assert before.geometry is not None
    assert after.geometry is not None
    assert after.scale0.tolist() == [[2.0, 2.0]]
    torch.testing.assert_close(after.geometry.K0[0, 0, 0], 2 * before.geometry.K0[0, 0, 0])


def test_a_converted_scannet_table_reads_the_same(scannet: Path, tmp_path: Path) -> None:
    path = scannet / "index" / "scene0000_00.npz"
    for one, other in zip(
        read_scannet_index(path), read_scannet_index(convert(path, tmp_path)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_depth_is_taken_from_the_nearest_pixel() -> None:
    depth = np.array([[1.0, 9.0], [2.0, 8.0]], np.float32)
    assert resample_depth(depth, (4, 4))[0].tolist() == [1.0, 1.0, 9.0, 9.0]
    assert resample_depth(depth, (1, 1)).tolist() == [[8.0]]


def test_a_stretched_picture_has_no_mask() -> None:
    view = make_view(
        np.ones((60, 100), np.float32), np.ones((30, 50)), np.eye(3), Framing((64, 96), False)
    )
    assert view.mask is None
    torch.testing.assert_close(view.scale, torch.tensor([[100 / 96, 60 / 64]]))
    assert view.depth.min() == 1


def test_unknown_depth_is_zero(tmp_path: Path) -> None:
    path = tmp_path / "depth.png"
    cv2.imwrite(str(path), np.array([[0, 1500, 65535]], np.uint16))
    np.testing.assert_allclose(read_depth(path), [[0.0, 1.5, 0.0]])
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"depth\.png"):
        read_depth(path)
    with pytest.raises(UsageError, match=r"none\.h5"):
        read_depth(tmp_path / "none.h5")


def test_depth_that_another_process_has_locked_is_read(tmp_path: Path) -> None:
    path = tmp_path / "depth.h5"
    with h5py.File(path, "w") as file:
        file["depth"] = np.ones((2, 3), np.float32)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert read_depth(path).tolist() == [[1.0, 1.0, 1.0]] * 2


def test_every_scene_is_drawn_equally_often_and_ranks_share_nothing() -> None:
    order = SceneBalanced((5, 0, 1000, 2), per_scene=10, seed=1)
    first, second = order(0), order(1)
    assert order(0) == first != second
    assert SceneBalanced((5, 0, 1000, 2), 10, seed=2)(0) != first
    scene = np.searchsorted([5, 1005, 1007], first, side="right")
    assert np.bincount(scene).tolist() == [10, 10, 10]
    assert sorted(i for i in first if i < 5) == sorted([0, 1, 2, 3, 4] * 2)
    ranks = [next(iter(PairStream(order, 15, rank=r, world=2))) for r in (0, 1)]
    assert sorted(i for keys in ranks for _, i in keys) == sorted(first)


def test_every_failure_of_a_depth_reader_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, bomb = tmp_path / "text.h5", tmp_path / "bomb.png"
    with h5py.File(text, "w") as file:
        file["depth"] = [b"a", b"b"]
    cv2.imwrite(str(bomb), np.ones((3, 3), np.uint16))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    for path in (text, bomb):
        with pytest.raises(ImageError, match=rf"E102 .*{path.name}: is not a depth map"):
            read_depth(path)


class Spoiled(torch.utils.data.Dataset):
    """Samples of which some cannot be read."""

    def __init__(self, bad: Container[int], count: int = 10_000) -> None:
        self.bad, self.count = bad, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> int:
        if key[1] in self.bad:
            raise ImageError(102, f"{key[1]}.jpg", "is damaged")
        return key[1]


def test_a_corrupt_sample_is_noted_and_replaced_by_the_same_one(tmp_path: Path) -> None:
    data = Replacing(Spoiled({7, 7926}), tmp_path / "notes.txt")
    assert data[0, 7] == data[1, 7] == 7 + 2 * 7919 - 10_000
    assert data[0, 8] == 8
    assert data.notes.indices() == {7, 7926}
    assert "7.jpg" in (tmp_path / "notes.txt").read_text()


def test_too_many_corrupt_samples_stop_the_run(tmp_path: Path) -> None:
    data = Replacing(Spoiled(set(range(11))), tmp_path / "notes.txt")
    for i in range(10):
        data[0, i]
    with pytest.raises(ImageError, match="11 of 10000"):
        data[0, 10]


def test_a_dataset_of_which_nothing_can_be_read_stops_after_50_samples(tmp_path: Path) -> None:
    data = Replacing(Spoiled(range(10**8), 10**8), tmp_path / "notes.txt")
    last = 7 + 49 * 7919
    with pytest.raises(ImageError, match=rf"E106 .*50 samples in a row .*{last}\.jpg.*delete"):
        data[0, 7]
    assert len(data.notes.indices()) == 50


def test_each_note_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, lengths = tmp_path / "notes.txt", []
    data = Replacing(Spoiled(range(30), 10**6), notes)
    read = Path.open

    def opened(path: Path, mode: str) -> Any:
        lengths.append((mode, path.stat().st_size if path.exists() else 0))
        return read(path, mode)

    monkeypatch.setattr(Path, "open", opened)
    for _ in range(2):
        for i in range(30):
            data[0, i]
    assert [mode for mode, _ in lengths] == ["ab", "rb"] * 30


def test_notes_of_another_process_count_and_deleted_ones_are_forgotten(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    data, other = (Replacing(Spoiled({1, 2}), notes) for _ in range(2))
    data[0, 1]
    other[0, 2]
    assert data.notes.indices() == {1, 2}
    notes.unlink()
    assert data.notes.indices() == set()


@pytest.mark.parametrize("count", [1, 7918, 7919, 2 * 7919, 7919 * 8919, 10_000])
def test_replacements_visit_every_sample(count: int) -> None:
    stride = coprime_stride(count)
    assert len({i * stride % count for i in range(min(count, 20_000))}) == min(count, 20_000)


def test_a_dataset_as_long_as_the_stride_finds_a_replacement(tmp_path: Path) -> None:
    assert Replacing(Spoiled({5}, 7919), tmp_path / "notes.txt")[0, 5] == 1005


def test_an_interrupted_conversion_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "scene.npz", tmp_path / "out" / "scene.h5"
    np.savez(source, name=np.zeros((2, 4), np.uint16))
    target.parent.mkdir()
    target.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"E401 .*scene\.h5"):
        convert(source, target.parent)
    assert [p.name for p in target.parent.iterdir()] == ["scene.h5"]
    assert target.read_bytes() == b"old"


def test_options_are_named_as_the_configuration_has_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E201 data\.files\.framing\.size"):
        Framing((8, 8))
    with pytest.raises(UsageError, match=r"E201 data\.files\.per_scene"):
        SceneBalanced((1,), per_scene=0, seed=0)
    with pytest.raises(UsageError, match=r"E201 data\.files\.overlap"):
        SceneBalanced((0,), per_scene=1, seed=0)
    with pytest.raises(UsageError, match=r"set data\.synthetic\.photos"):
        list_photos(tmp_path / "nowhere")
