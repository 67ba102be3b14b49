"""RGB-D folders and COLMAP models as sources of pairs."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import Frame, rendered_scenes, write_image
from test_indices import gray_error

from data.colmap import PATCH, ColmapPairs, read_model, splat
from data.readers import Framing
from data.rgbd import RgbdPairs, list_frames, pose_of
from matcher.errors import ImageError, UsageError
from matcher.training.supervision import supervise

KITCHEN = Path(__file__).resolve().parents[2] / "shared" / "datasets" / "redkitchen"


@pytest.fixture(scope="module")
def frames() -> tuple[Frame, Frame]:
    return rendered_scenes(1, (480, 640), seed=8)[0]


def numbered(folder: Path, frames: tuple[Frame, Frame]) -> Path:
    """Depth at every second pixel. Both frames get the first K: use the first frame twice."""
    for i, frame in enumerate(frames):
        write_image(folder / f"{i:06d}.jpg", frame.gray)
        write_image(folder / f"{i:06d}.depth.png", millimetres(frame.depth)[::2, ::2])
    poses = np.stack([np.linalg.inv(f.pose) for f in frames]).astype(np.float32)
    np.savez(folder / "cameras.npz", frame=np.arange(2), K=frames[0].K, pose=poses)
    return folder


def millimetres(depth: np.ndarray) -> np.ndarray:
    return (depth * 1000).round().astype(np.uint16)


def test_a_numbered_folder_gives_pairs_with_depth(tmp_path: Path, frames) -> None:
    first = frames[0]
    pairs = RgbdPairs(numbered(tmp_path, (first, first)), overlap=(0.5, 1.0))
    assert len(pairs) == 1
    assert pairs.overlap[0] > 0.9
    assert gray_error(pairs[0]) < 0.02
    torch.testing.assert_close(pairs[0].geometry.T_0to1[0], torch.eye(4), atol=1e-4, rtol=0)


def test_frames_are_limited_by_number(tmp_path: Path, frames) -> None:
    folder = numbered(tmp_path, frames)
    assert [f.number for f in list_frames(folder)] == [0, 1]
    with pytest.raises(UsageError, match="1 frames"):
        RgbdPairs(folder, frames=(1, 700))


def test_seven_scenes_and_tum_layouts_are_read(tmp_path: Path, frames) -> None:
    first = frames[0]
    seven, tum = tmp_path / "seven", tmp_path / "tum"
    for i in range(2):
        stem = f"frame-{i:06d}"
        write_image(seven / f"{stem}.color.png", first.gray)
        write_image(seven / f"{stem}.depth.png", millimetres(first.depth))
        np.savetxt(seven / f"{stem}.pose.txt", np.linalg.inv(first.pose))
        write_image(tum / "rgb" / f"{i}.png", first.gray)
        write_image(tum / "depth" / f"{i}.png", (first.depth * 5000).round().astype(np.uint16))
    for name in ("rgb", "depth"):
        lines = [f"{i}.{name == 'depth':d} {name}/{i}.png" for i in range(2)]
        (tum / f"{name}.txt").write_text("# time file\n" + "\n".join(lines).replace(".1", ".01"))
    (tum / "groundtruth.txt").write_text("0.0 1 2 3 0 0 0 1\n1.0 1 2 3 0 0 0 1\n9 0 0 0 0 0 0 1")
    for folder in (seven, tum):
        pairs = RgbdPairs(folder, overlap=(0.5, 1.0))
        assert len(pairs) == 1
        depth = pairs[0].geometry.depth0[0].numpy()
        assert np.abs(depth - first.depth).max() < 0.001
    np.testing.assert_allclose(list_frames(tum)[0].pose[:3, 3], [1, 2, 3])


def test_a_quaternion_of_a_quarter_turn() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        pose_of(np.array([0, 0, 0, 0, 0, half, half]))[:3, :3],
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        atol=1e-12,
    )


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no RGB-D sequence"):
        RgbdPairs(tmp_path)


@pytest.mark.skipif(not KITCHEN.is_dir(), reason="shared/datasets/redkitchen is not here")
def test_the_kitchen_gives_supervised_pairs() -> None:
    pairs = RgbdPairs(KITCHEN, frames=(0, 700), stride=12, overlap=(0.3, 0.9))
    assert len(pairs) > 10
    assert max(f.number for f in pairs.frames) < 700
    coarse, _ = supervise(pairs[0], stride=8, reach=6.0)
    assert len(coarse.batch) > 300
    assert gray_error(pairs[0]) < 0.1


def colmap_model(folder: Path, frames: tuple[Frame, Frame], *, binary: bool) -> Path:
    """A model of the points that every 12th pixel of the first frame sees."""
    write_image(folder / "images" / "0.jpg", frames[0].gray)
    write_image(folder / "images" / "1 b.jpg", frames[1].gray)
    y, x = np.mgrid[6:480:12, 6:640:12].reshape(2, -1)
    z = frames[0].depth[y, x]
    rays = np.linalg.inv(frames[0].K) @ np.stack([x, y, np.ones_like(x)])
    back = np.linalg.inv(frames[0].pose)
    world = (back[:3, :3] @ (rays * z) + back[:3, 3:]).T
    seen = []
    for frame in frames:
        camera = frame.pose[:3, :3] @ world.T + frame.pose[:3, 3:]
        pixel = (frame.K @ camera)[:2] / camera[2] + 0.5
        seen.append((pixel.T, (camera[2] > 0) & (pixel > 0).all(0) & (pixel[0] < 640)
                     & (pixel[1] < 480)))  # fmt: skip
    model = folder / "sparse"
    model.mkdir()
    (write_binary if binary else write_text)(model, frames, seen, world)
    return folder


def pinhole(frame: Frame) -> list[float]:
    K = frame.K
    return [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """(w, x, y, z): the eigenvector that the rotation matrix defines."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array([
        [a + e + i, h - f, c - g, d - b],
        [h - f, a - e - i, b + d, c + g],
        [c - g, b + d, e - a - i, f + h],
        [d - b, c + g, f + h, i - a - e],
    ])  # fmt: skip
    return np.linalg.eigh(matrix)[1][:, -1]


def write_text(model: Path, frames, seen, world: np.ndarray) -> None:
    lines = [f"{i + 1} PINHOLE 640 480 " + " ".join(map(repr, map(float, pinhole(f))))
             for i, f in enumerate(frames)]  # fmt: skip
    (model / "cameras.txt").write_text("# cameras\n" + "\n".join(lines))
    lines = []
    for i, (frame, name, (pixel, inside)) in enumerate(
        zip(frames, ("0.jpg", "1 b.jpg"), seen, strict=True)
    ):
        numbers = [*quaternion(frame.pose[:3, :3]), *frame.pose[:3, 3]]
        lines.append(f"{i + 1} {' '.join(str(float(n)) for n in numbers)} {i + 1} {name}")
        ids = np.where(inside, np.arange(len(world)), -1)
        lines.append(" ".join(f"{p[0]} {p[1]} {n}" for p, n in zip(pixel, ids, strict=True)))
    (model / "images.txt").write_text("# images\n" + "\n".join(lines))
    lines = [f"{n} {p[0]} {p[1]} {p[2]} 0 0 0 0.1" for n, p in enumerate(world)]
    (model / "points3D.txt").write_text("\n".join(lines))


def write_binary(model: Path, frames, seen, world: np.ndarray) -> None:
    data = struct.pack("<Q", 2)
    for i, frame in enumerate(frames):
        data += struct.pack("<iiQQ4d", i + 1, 1, 640, 480, *pinhole(frame))
    (model / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", 2)
    for i, (frame, name, (pixel, inside)) in enumerate(
        zip(frames, ("0.jpg", "1 b.jpg"), seen, strict=True)
    ):
        pose = [*quaternion(frame.pose[:3, :3]), *frame.pose[:3, 3]]
        data += struct.pack("<i7di", i + 1, *pose, i + 1) + name.encode() + b"\0"
        data += struct.pack("<Q", len(world))
        for n, (p, keep) in enumerate(zip(pixel, inside, strict=True)):
            data += struct.pack("<ddq", *p, n if keep else -1)
    (model / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(world))
    for n, p in enumerate(world):
        data += struct.pack("<Q3d3BdQ2i", n, *p, 0, 0, 0, 0.1, 1, 1, n)
    (model / "points3D.bin").write_bytes(data)


@pytest.mark.parametrize("binary", [False, True])
def test_a_colmap_model_gives_pairs_with_sparse_depth(tmp_path: Path, frames, binary: bool) -> None:
    folder = colmap_model(tmp_path, frames, binary=binary)
    pairs = ColmapPairs(
        folder / "images", folder / "sparse", overlap=(0.05, 1.0), framing=Framing((480, 640))
    )
    assert len(pairs) == 1
    pair = pairs[0]
    assert pair.geometry is not None
    K0, K1 = pair.geometry.K0[0].numpy(), pair.geometry.K1[0].numpy()
    np.testing.assert_allclose(K0, frames[0].K, rtol=1e-6)
    np.testing.assert_allclose(K1, frames[1].K, rtol=1e-6)
    depth = pair.geometry.depth0[0].numpy()
    np.testing.assert_allclose(depth[6::12, 6::12], frames[0].depth[6::12, 6::12], rtol=1e-3)
    relative = frames[1].pose @ np.linalg.inv(frames[0].pose)
    np.testing.assert_allclose(pair.geometry.T_0to1[0].numpy(), relative, atol=1e-4)
    assert gray_error(pair) < 0.06
    assert len(supervise(pair, stride=8, reach=6.0)[0].batch) > 50


def test_a_point_stands_for_its_patch_and_the_nearest_wins() -> None:
    depth = splat(np.array([[10.0, 10.0], [12.0, 10.0]]), np.array([3.0, 2.0]), (20, 30))
    assert depth[10, 10 - PATCH] == 3
    assert depth[10, 10] == 2
    assert depth[10, 12 + PATCH] == 2
    assert depth[0, 0] == 0


def test_models_that_cannot_be_used_are_named(tmp_path: Path, frames) -> None:
    folder = colmap_model(tmp_path / "a", frames, binary=False) / "sparse"
    cameras = folder / "cameras.txt"
    cameras.write_text(cameras.read_text().replace("PINHOLE", "OPENCV"))
    with pytest.raises(UsageError, match="undistort"):
        read_model(folder)
    shutil.rmtree(tmp_path / "a")
    folder = colmap_model(tmp_path / "a", frames, binary=True) / "sparse"
    (folder / "images.bin").write_bytes((folder / "images.bin").read_bytes()[:500])
    with pytest.raises(ImageError, match="COLMAP"):
        read_model(folder)
    with pytest.raises(UsageError, match="no such file"):
        read_model(tmp_path)
