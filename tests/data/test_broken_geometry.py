"""Indices, models and pose files that lack a part or hold no geometry are one line that says so."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.real.colmap_model import read_model
from data.real.index import read_scene_index
from data.real.megadepth import listed_names
from data.real.readers import read_pose
from data.real.rgbd_layouts import list_frames
from data.real.scannet import read_intrinsics
from matcher.errors import ImageError, MatcherError, StorageError, UsageError

K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
BAD_ROTATIONS = {
    "zero": np.zeros((3, 3)),
    "mirrored": np.diag([1, 1, -1.0]),
    "sheared": np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]),
}


def posed(rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return pose


each_bad_rotation = pytest.mark.parametrize("rotation", BAD_ROTATIONS.values(), ids=BAD_ROTATIONS)


@each_bad_rotation
def test_a_pose_file_without_a_rotation_is_refused(tmp_path: Path, rotation: np.ndarray) -> None:
    np.savetxt(tmp_path / "pose.txt", posed(rotation))
    with pytest.raises(ImageError, match=r"E104 .*pose\.txt: no rotation"):
        read_pose(tmp_path / "pose.txt")


def test_a_pose_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "pose.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(UsageError, match=r"E112 .*pose\.txt"):
        read_pose(tmp_path / "pose.txt")
    with pytest.raises(UsageError, match=r"E112 .*pose\.txt"):
        listed_names(tmp_path / "pose.txt")


def scene_index(path: Path, **other: Any) -> Path:
    values = {
        "image_paths": np.array(["a.jpg", "b.jpg"]),
        "depth_paths": np.array(["a.h5", "b.h5"]),
        "intrinsics": np.stack([K, K]),
        "poses": np.stack([np.eye(4), np.eye(4)]),
        "pairs": np.array([[0, 1]]),
        "overlap": np.array([0.5]),
    }
    np.savez(path, **(values | other))
    return path


@each_bad_rotation
def test_a_scene_index_without_a_rotation_is_refused(tmp_path: Path, rotation: np.ndarray) -> None:
    path = scene_index(tmp_path / "a.npz", poses=np.stack([np.eye(4), posed(rotation)]))
    with pytest.raises(StorageError, match=r"E402 .*a\.npz: is no usable index \(no rotation"):
        read_scene_index(path)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"intrinsics": np.zeros((2, 3, 3))}, "no intrinsics"),
        ({"poses": np.full((2, 4, 4), np.nan)}, "no pose"),
        ({"poses": np.stack([np.eye(4)] * 3)}, "differ in length"),
        ({"pairs": np.array([[0, 2]])}, "beyond the list"),
        ({"pairs": np.array([[-1, 0]])}, "beyond the list"),
    ],
)
def test_a_scene_index_that_does_not_fit_together_is_refused(
    tmp_path: Path, other: dict[str, np.ndarray], named: str
) -> None:
    assert len(read_scene_index(scene_index(tmp_path / "good.npz")).pairs) == 1
    with pytest.raises(StorageError, match=rf"E402 .*{named}"):
        read_scene_index(scene_index(tmp_path / "a.npz", **other))


def test_intrinsics_of_no_camera_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", scene0000_00=K.ravel(), scene0000_01=2 * K)
    read = read_intrinsics(tmp_path / "good.npz")
    np.testing.assert_array_equal(list(read.values()), [K, K])
    for bad in (np.zeros((3, 3)), K[:2], -K.T):
        np.savez(tmp_path / "bad.npz", scene0000_00=bad)
        with pytest.raises(StorageError, match=r"E402 .*bad\.npz"):
            read_intrinsics(tmp_path / "bad.npz")


CAMERAS = {"frame": np.arange(3), "K": K, "pose": np.stack([np.eye(4)] * 3)}
BROKEN_CAMERAS: dict[str, tuple[dict[str, np.ndarray | None], str]] = {
    "no K": ({"K": None}, "lacks 'K'"),
    "no pose": ({"pose": None}, "lacks 'pose'"),
    "no frame": ({"frame": None}, "lacks 'frame'"),
    "more poses": ({"pose": np.stack([np.eye(4)] * 5)}, r"pose \(5, 4, 4\)"),
    "poses of 3 rows": ({"pose": np.stack([np.eye(4)[:3]] * 3)}, r"pose \(3, 3, 4\)"),
    "a K a frame": ({"K": np.stack([K] * 3)}, r"K \(3, 3, 3\)"),
    "K of words": ({"K": np.array(["a"] * 9).reshape(3, 3)}, "could not convert"),
    "K of zeros": ({"K": np.zeros((3, 3))}, "no intrinsics"),
    "one number": ({"frame": np.array(3)}, r"frame \(\)"),
    "numbers with parts": ({"frame": np.arange(3) + 0.5}, "expected numbers"),
}


@pytest.mark.parametrize(
    ("other", "named"), list(BROKEN_CAMERAS.values()), ids=list(BROKEN_CAMERAS)
)
def test_cameras_of_rgbd_frames_that_lack_a_part_are_one_line(
    tmp_path: Path, other: dict[str, np.ndarray | None], named: str
) -> None:
    values = {name: v for name, v in (CAMERAS | other).items() if v is not None}
    np.savez(tmp_path / "cameras.npz", **values)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StorageError, match=rf"E402 .*cameras\.npz: .*{named}"):
        list_frames(tmp_path)


@each_bad_rotation
def test_rgbd_frames_without_a_rotation_are_left_out_and_told(
    tmp_path: Path, rotation: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    poses = np.stack([np.eye(4), posed(rotation), np.eye(4)])
    np.savez(tmp_path / "cameras.npz", **(CAMERAS | {"pose": poses}))
    with caplog.at_level(logging.WARNING):
        assert [frame.number for frame in list_frames(tmp_path)] == [0, 2]
    assert "1 of 3 frames left out" in caplog.text


def test_other_files_among_the_poses_of_seven_scenes_are_no_frames(tmp_path: Path) -> None:
    for name in ("frame-000001.pose.txt", "frame-copy.pose.txt"):
        np.savetxt(tmp_path / name, np.eye(4))
    assert [frame.number for frame in list_frames(tmp_path)] == [1]


def test_more_words_in_a_list_of_pictures_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "rgb.txt").write_text("1.0 rgb/1.png taken by hand\n")
    (tmp_path / "depth.txt").write_text("1.0 depth/1.png\n")
    (tmp_path / "groundtruth.txt").write_text("1.0 0 0 0 0 0 0 1\n")
    assert [frame.image.name for frame in list_frames(tmp_path)] == ["1.png"]


def colmap_text(folder: Path, *, camera: str = "500 500 320 240", pose: str = "1 0 0 0 0 0 0",
                point: str = "0 0 5 0 0 0 0.1") -> Path:  # fmt: skip
    folder.mkdir()
    (folder / "cameras.txt").write_text(f"1 PINHOLE 640 480 {camera}\n")
    (folder / "images.txt").write_text(f"1 {pose} 1 a.jpg\n3.5 4.5 7\n")
    (folder / "points3D.txt").write_text(f"7 {point}\n")
    return folder


@pytest.mark.parametrize(
    "fault",
    [
        {"pose": "0 0 0 0 0 0 0"},
        {"pose": "nan 0 0 0 0 0 0"},
        {"pose": "1 0 0 0 inf 0 0"},
        {"pose": "1 0 0 0 1e300 0 0"},
        {"camera": "0 500 320 240"},
        {"camera": "500 -500 320 240"},
        {"camera": "500 500 nan 240"},
        {"camera": "500 500 320"},
        {"point": "0 0"},
    ],
    ids=str,
)
def test_a_text_model_of_no_geometry_is_refused(tmp_path: Path, fault: dict[str, str]) -> None:
    assert len(read_model(colmap_text(tmp_path / "good")).images) == 1
    with pytest.raises(ImageError, match=r"E102 .*is not a COLMAP model"):
        read_model(colmap_text(tmp_path / "bad", **fault))


def colmap_binary(folder: Path, quaternion: tuple[float, ...], focal: float) -> Path:
    folder.mkdir()
    camera = struct.pack("<iiQQ4d", 1, 1, 640, 480, focal, 500, 320, 240)
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", 1) + camera)
    image = struct.pack("<i7di", 1, *quaternion, 0, 0, 0, 1) + b"a.jpg\0" + struct.pack("<Q", 0)
    (folder / "images.bin").write_bytes(struct.pack("<Q", 1) + image)
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", 0))
    return folder


@pytest.mark.parametrize(
    ("quaternion", "focal"),
    [((0, 0, 0, 0), 500), ((np.nan, 0, 0, 0), 500), ((1, 0, 0, 0), 0), ((1, 0, 0, 0), -5)],
)
def test_a_binary_model_of_no_geometry_is_refused(
    tmp_path: Path, quaternion: tuple[float, ...], focal: float
) -> None:
    pytest.importorskip("pycolmap")
    assert len(read_model(colmap_binary(tmp_path / "good", (1, 0, 0, 0), 500)).images) == 1
    with pytest.raises(MatcherError, match=r"E\d{3} .*COLMAP model"):
        read_model(colmap_binary(tmp_path / "bad", quaternion, focal))
