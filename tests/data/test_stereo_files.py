"""Files of disparity and published stereo sets, on miniatures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.real.stereo import (
    find_kitti,
    find_middlebury,
    find_scene_flow,
    read_stereo,
)
from matcher.errors import ImageError, MatcherError, UsageError
from matcher.interop.point_cloud import write_ply
from matcher.tasks.stereo.files import (
    read_disparity,
    read_kitti,
    read_pfm,
    write_disparity,
    write_kitti,
    write_pfm,
)

FIELD = np.array([[1.5, 0.0, 7.25], [0.5, 100.0, 3.0]], np.float32)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (4, 5, 3)])
def test_a_pfm_of_either_byte_order_is_read_back(
    tmp_path: Path, big_endian: bool, shape: tuple[int, ...]
) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_pfm(tmp_path / "a.pfm", values, big_endian=big_endian)
    assert np.array_equal(read_pfm(tmp_path / "a.pfm"), values)


def test_rows_of_a_pfm_run_bottom_up(tmp_path: Path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"Pf\n1 2\n-1.0\n" + np.array([5, 8], "<f4").tobytes())
    assert read_pfm(tmp_path / "a.pfm").tolist() == [[8], [5]]


@pytest.mark.parametrize(
    "data",
    [b"", b"P5\n2 2\n255\n1234", b"Pf\n2 2\n-1.0\n" + bytes(15), b"Pf\n0 2\n-1\n", b"Pf\nx y\n"],
)
def test_a_damaged_pfm_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pfm").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.pfm"):
        read_pfm(tmp_path / "a.pfm")


def test_kitti_keeps_disparities_to_a_256th_and_unknown_ones_apart(tmp_path: Path) -> None:
    field = np.array([[0.0, 0.001, 12.34567, 255.9]], np.float32)
    write_kitti(tmp_path / "a.png", field)
    back = read_kitti(tmp_path / "a.png")
    assert back[0, 0] == 0
    assert back[0, 1] > 0
    assert np.abs(back - field).max() <= 1 / 256
    with pytest.raises(UsageError, match="16 bits"):
        write_kitti(tmp_path / "b.png", field + 10)


def test_an_ordinary_picture_is_no_disparity(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 4, 6)
    with pytest.raises(ImageError, match="16 bits"):
        read_kitti(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".pfm", ".png", ".npz"])
def test_unknown_disparities_stay_unknown_in_every_format(tmp_path: Path, suffix: str) -> None:
    write_disparity(tmp_path / f"a{suffix}", FIELD)
    assert np.abs(read_disparity(tmp_path / f"a{suffix}") - FIELD).max() <= 1 / 256


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.jpg"):
        write_disparity(tmp_path / "a.jpg", FIELD)


def test_a_ply_says_how_many_points_it_holds(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", np.ones((5, 3)), np.full((5, 3), 9, np.uint8))
    header, _, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    assert b"element vertex 5\n" in header
    assert len(body) == 5 * 15


def picture(path: Path, height: int, width: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    path.write_bytes(cv2.imencode(".png", values)[1].tobytes())


def mask(path: Path, values: list[list[int]]) -> None:
    path.write_bytes(cv2.imencode(".png", np.array(values, np.uint8))[1].tobytes())


def test_middlebury_is_read_with_its_mask(tmp_path: Path) -> None:
    scene = tmp_path / "Adirondack"
    for name in ("im0.png", "im1.png"):
        picture(scene / name, 2, 3)
    write_pfm(scene / "disp0GT.pfm", np.array([[1, np.inf, 3], [4, 5, 6]], np.float32))
    mask(scene / "mask0nocc.png", [[255, 0, 128], [255, 128, 255]])
    (files,) = find_middlebury(tmp_path)
    pair = read_stereo(files)
    assert files.name == "Adirondack"
    assert pair.disparity[0].tolist() == [[1, 0, 3], [4, 5, 6]]
    assert pair.occluded[0].tolist() == [[False, False, True], [False, True, False]]
    assert pair.valid[0].tolist() == [[True, False, True], [True, True, True]]


def middlebury(scene: Path) -> None:
    for name in ("im0.png", "im1.png"):
        picture(scene / name, *FIELD.shape)
    write_pfm(scene / "disp0GT.pfm", FIELD)


def test_scenes_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    for part in ("trainingF", "trainingH"):
        middlebury(tmp_path / part / "Adirondack")
    names = [files.name for files in find_middlebury(tmp_path)]
    assert names == ["trainingF/Adirondack", "trainingH/Adirondack"]
    (alone,) = find_middlebury(tmp_path / "trainingF" / "Adirondack")
    assert alone.name == "Adirondack"


def test_kitti_in_color_and_in_gray_is_one_pair(tmp_path: Path) -> None:
    for side in ("colored_0", "colored_1", "image_0", "image_1"):
        picture(tmp_path / side / "000001_10.png", *FIELD.shape)
    (tmp_path / "disp_occ").mkdir()
    write_kitti(tmp_path / "disp_occ" / "000001_10.png", FIELD)
    (files,) = find_kitti(tmp_path)
    assert files.left.parent.name == "colored_0"


def test_a_mask_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    middlebury(tmp_path / "scene")
    mask(tmp_path / "scene" / "mask0nocc.png", [[255, 0]])
    with pytest.raises(ImageError, match=r"E105 .*mask0nocc\.png"):
        read_stereo(find_middlebury(tmp_path)[0])


def test_kitti_tells_occlusion_by_its_two_disparities(tmp_path: Path) -> None:
    for side in ("image_2", "image_3"):
        picture(tmp_path / side / "000001_10.png", 2, 3)
    for folder, field in (("disp_occ_0", FIELD), ("disp_noc_0", FIELD * (FIELD < 50))):
        (tmp_path / folder).mkdir()
        write_kitti(tmp_path / folder / "000001_10.png", field)
    (files,) = find_kitti(tmp_path)
    pair = read_stereo(files)
    assert pair.occluded[0].tolist() == [[False] * 3, [False, True, False]]
    assert pair.valid.sum() == 5


def test_a_folder_of_three_pictures_is_a_pair(tmp_path: Path) -> None:
    for name in ("left.png", "right.png"):
        picture(tmp_path / "000046" / name, 2, 3)
    write_kitti(tmp_path / "000046" / "disparity.png", FIELD)
    (files,) = find_kitti(tmp_path)
    assert not read_stereo(files).occluded.any()


@pytest.mark.parametrize(
    ("images", "inner", "sign"),
    [("frames_finalpass", "TRAIN/A/0000", 1), ("image_clean", ".", -1)],
)
def test_scene_flow_and_its_subset_are_found(
    tmp_path: Path, images: str, inner: str, sign: int
) -> None:
    for side in ("left", "right"):
        picture(tmp_path / images / inner / side / "0006.png", 4, 16)
        target = tmp_path / "disparity" / inner / side / "0006.pfm"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_pfm(target, np.full((4, 16), 3.0 * (sign if side == "left" else 1), np.float32))
    (files,) = find_scene_flow(tmp_path)
    pair = read_stereo(files)
    assert (pair.disparity == 3).all()
    assert pair.occluded[0, 0].tolist() == [True] * 3 + [False] * 13


def test_views_and_disparity_of_different_sizes_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "left.png", 2, 3)
    picture(tmp_path / "a" / "right.png", 2, 4)
    write_kitti(tmp_path / "a" / "disparity.png", FIELD)
    with pytest.raises(ImageError, match="sizes"):
        read_stereo(find_kitti(tmp_path)[0])


@pytest.mark.parametrize("find", [find_middlebury, find_kitti, find_scene_flow])
def test_a_folder_without_pairs_is_named(tmp_path: Path, find) -> None:
    with pytest.raises(MatcherError, match=tmp_path.name):
        find(tmp_path)
    with pytest.raises(MatcherError, match="nowhere"):
        find(tmp_path / "nowhere")
