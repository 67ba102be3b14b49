"""RGB-D folders and COLMAP models as sources of pairs."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data.config import FilesConfig, Framing
from data.real.colmap import PATCH, ColmapPairs, splat
from data.real.colmap_model import read_model
from data.real.rgbd import RgbdPairs
from data.real.rgbd_layouts import list_frames, pose_of
from data.real.sources import training_pairs, validation_pairs
from data.synthetic.photos import list_photos, read_texture
from matcher.errors import ImageError, UsageError
from matcher.training.supervision import supervise
from tests.helpers.geometry import gray_error
from tests.helpers.miniature import Frame, rendered_scenes, write_image

KITCHEN = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "redkitchen"


@pytest.fixture(scope="module")
def frames() -> tuple[Frame, Frame]:
    return rendered_scenes(1, (480, 640), seed=8)[0]


def numbered(folder: Path, frames: tuple[Frame, Frame]) -> Path:
    """Depth at every second pixel. Both frames get the first K: use the first frame twice."""
    for i, frame in enumerate(frames):
        write_image(folder / f"{i:06d}.jpg", frame.gray)
        write_image(folder / f"{i:06d}.depth.png", millimeters(frame.depth)[::2, ::2])
    poses = np.stack([np.linalg.inv(f.pose) for f in frames]).astype(np.float32)
    np.savez(folder / "cameras.npz", frame=np.arange(2), K=frames[0].K, pose=poses)
    return folder


def millimeters(depth: np.ndarray) -> np.ndarray:
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


def seven_scenes(folder: Path, depth: np.ndarray, count: int = 2) -> Path:
    """`count` times the same frame."""
    for i in range(count):
        stem = f"frame-{i:06d}"
        write_image(folder / f"{stem}.color.png", np.full((480, 640), 128, np.uint8))
        write_image(folder / f"{stem}.depth.png", millimeters(depth))
        np.savetxt(folder / f"{stem}.pose.txt", np.eye(4))
    return folder


def test_frames_to_validate_on_may_be_of_another_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        seven_scenes(tmp_path / name, np.ones((480, 640)), count=4)
    files = FilesConfig(root=str(tmp_path / "a"), frames=(0, 2), overlap=(0.5, 1.0))
    found = []
    for change in ({"val_frames": (2, 4)}, {"val_root": str(tmp_path / "b")}):
        for more in ({}, {"val_frames": (1, 4)}):
            pairs = validation_pairs("rgbd", replace(files, **{**change, **more}))
            assert isinstance(pairs, RgbdPairs)
            found.append([(f.image.parent.name, f.number) for f in pairs.frames])
    a, b = ([(name, number) for number in range(4)] for name in "ab")
    assert found == [a[2:], a[1:], b[:2], b[1:]]


def test_depth_of_seven_scenes_is_brought_to_the_color_camera(tmp_path: Path) -> None:
    depth = np.ones((480, 640))
    depth[:, 437:] = 2  # 117 pixels right of the center at f = 585 are 105 at f = 525
    geometry = RgbdPairs(seven_scenes(tmp_path, depth), overlap=(0.5, 1.0))[0].geometry
    assert geometry is not None
    assert geometry.K0[0].tolist() == [[525, 0, 320], [0, 525, 240], [0, 0, 1]]
    seen = geometry.depth0[0, 240]
    assert [seen[x].item() for x in (31, 34, 424, 426, 605, 608)] == [0, 1, 1, 2, 2, 0]


def test_tum_layout_is_read(tmp_path: Path, frames) -> None:
    first = frames[0]
    tum = tmp_path / "tum"
    for i in range(2):
        write_image(tum / "rgb" / f"{i}.png", first.gray)
        write_image(tum / "depth" / f"{i}.png", (first.depth * 5000).round().astype(np.uint16))
    for name in ("rgb", "depth"):
        lines = [f"{i}.{name == 'depth':d} {name}/{i}.png" for i in range(2)]
        (tum / f"{name}.txt").write_text("# time file\n" + "\n".join(lines).replace(".1", ".01"))
    (tum / "groundtruth.txt").write_text("0.0 1 2 3 0 0 0 1\n1.0 1 2 3 0 0 0 1\n9 0 0 0 0 0 0 1")
    pairs = RgbdPairs(tum, overlap=(0.5, 1.0))
    assert len(pairs) == 1
    assert pairs[0].geometry is not None
    depth = pairs[0].geometry.depth0[0].numpy()
    assert np.abs(depth - first.depth).max() < 0.001
    np.testing.assert_allclose(list_frames(tum)[0].pose[:3, 3], [1, 2, 3])


def test_frames_without_a_pose_are_left_out_and_counted(tmp_path: Path, frames, caplog) -> None:
    seven = seven_scenes(tmp_path / "seven", np.ones((480, 640)), count=4)
    (seven / "frame-000001.pose.txt").write_text("nan " * 16)
    (seven / "frame-000003.pose.txt").write_text("cut off")
    assert [f.number for f in list_frames(seven)] == [0, 2]
    assert [r.getMessage().count("2 of 4 frames") for r in caplog.records] == [1]
    folder = numbered(tmp_path / "numbered", frames)
    poses = np.stack([np.full((4, 4), -np.inf), np.eye(4)])
    np.savez(folder / "cameras.npz", frame=np.arange(2), K=np.eye(3), pose=poses)
    assert [f.number for f in list_frames(folder)] == [1]


@pytest.mark.parametrize("words", ["nan 0 0 0 0 0 1", "0 0 0 0 0 0 0", "0 0 0 0 0 nan 1", "1 2"])
def test_words_that_are_no_pose_of_tum_are_a_lost_one(words: str) -> None:
    assert not np.isfinite(pose_of(words.split())).all()


@pytest.mark.parametrize("line", ["soon rgb/0.png", "1.0", "0.0 rgb/0.png\n\n1,0 rgb/1.png"])
def test_a_line_without_time_or_picture_is_named(tmp_path: Path, line: str) -> None:
    for name in ("depth", "groundtruth"):
        (tmp_path / f"{name}.txt").write_text("0.0 0\n")
    (tmp_path / "rgb.txt").write_text(f"# time file\n{line}\n")
    number = 1 + len(line.splitlines())
    with pytest.raises(UsageError, match=rf"rgb\.txt, line {number}"):
        list_frames(tmp_path)


def test_an_empty_list_is_named(tmp_path: Path) -> None:
    for name in ("rgb", "depth", "groundtruth"):
        (tmp_path / f"{name}.txt").write_text("# time file\n")
    with pytest.raises(UsageError, match="lists nothing"):
        list_frames(tmp_path)


def test_an_unreadable_depth_map_does_not_stop_the_start(tmp_path: Path, caplog) -> None:
    folder = seven_scenes(tmp_path, np.ones((480, 640)), count=3)
    (folder / "frame-000001.depth.png").write_bytes(b"damaged")
    pairs = RgbdPairs(folder, overlap=(0.5, 1.0))
    assert pairs.pairs.tolist() == [[0, 2]]
    assert "1 of 3 depth maps" in caplog.text
    every = RgbdPairs(folder, overlap=(0.0, 1.0))
    with pytest.raises(ImageError, match=r"frame-000001\.depth\.png"):
        every[0]
    for i in (0, 2):
        (folder / f"frame-{i:06d}.depth.png").unlink()
    with pytest.raises(UsageError, match=r"frame-000000\.depth\.png: no such depth map"):
        RgbdPairs(folder)


def test_overlap_is_that_of_pictures_of_any_size(tmp_path: Path) -> None:
    """A wall 2 m ahead, seen 2 m wide: a camera half a meter aside shares three quarters."""
    for i in range(2):
        write_image(tmp_path / f"{i:06d}.jpg", np.full((240, 320), 128, np.uint8))
        write_image(tmp_path / f"{i:06d}.depth.png", np.full((240, 320), 2000, np.uint16))
    pose = np.stack([np.eye(4)] * 2)
    pose[1, 0, 3] = 0.5
    K = np.array([[320, 0, 159.5], [0, 320, 119.5], [0, 0, 1]])
    np.savez(tmp_path / "cameras.npz", frame=np.arange(2), K=K, pose=pose)
    assert RgbdPairs(tmp_path).overlap.tolist() == [0.75]


def test_pictures_of_other_proportions_than_their_camera_are_refused(tmp_path: Path) -> None:
    folder = seven_scenes(tmp_path, np.ones((480, 640)))
    write_image(folder / "frame-000001.color.png", np.zeros((480, 480), np.uint8))
    with pytest.raises(ImageError, match=r"color\.png: is 480 x 480, its camera 640 x 480"):
        list_frames(folder)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_a_picture_does_not_hang(tmp_path: Path) -> None:
    folder = seven_scenes(tmp_path, np.ones((480, 640)))
    for name in ("frame-000001.color.png", "frame-000001.depth.png"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    pairs = RgbdPairs(folder, overlap=(0.0, 1.0))
    with pytest.raises(ImageError, match=r"color\.png: not an ordinary file"):
        pairs[0]
    assert [path.name for path in list_photos(folder)] == [
        "frame-000000.color.png", "frame-000000.depth.png"
    ]  # fmt: skip
    (folder / ".thumbnails").mkdir()
    for hidden in (".thumbnails/a.png", "._frame-000000.color.png"):
        (folder / hidden).write_bytes(b"small")
    assert len(list_photos(folder)) == 2
    os.mkfifo(folder / "pipe.png")
    assert read_texture(folder / "pipe.png", 32) is None


def test_a_quaternion_of_a_quarter_turn() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        pose_of(f"0 0 0 0 0 {half} {half}".split())[:3, :3],
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


def test_a_binary_model_has_the_numbers_that_were_written(tmp_path: Path, frames) -> None:
    model = read_model(colmap_model(tmp_path, frames, binary=True) / "sparse")
    text = read_model(colmap_model(tmp_path / "text", frames, binary=False) / "sparse")
    exact = {"rtol": 1e-12, "atol": 1e-12}
    for image, other, frame in zip(model.images, text.images, frames, strict=True):
        assert (image.name, image.camera.size) == (other.name, (480, 640))
        np.testing.assert_allclose(image.camera.K, frame.K, **exact)
        np.testing.assert_allclose(image.pose[:3, 3], frame.pose[:3, 3], **exact)
        np.testing.assert_allclose(image.pose, other.pose, **exact)
        np.testing.assert_allclose(image.points2d, other.points2d, **exact)
        assert image.points3d.tolist() == other.points3d.tolist()
    assert model.points.keys() == text.points.keys()
    for number, position in model.points.items():
        np.testing.assert_allclose(position, text.points[number], **exact)


def test_a_binary_model_without_pycolmap_names_the_extra(tmp_path: Path, frames, monkeypatch):
    folder = colmap_model(tmp_path, frames, binary=True) / "sparse"
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(UsageError, match=r"^E210 .*sparse.* pip install \"quadmatch\[sfm\]\"$"):
        read_model(folder)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("kept", [0, 4, 20, -8])
def test_a_binary_file_that_is_cut_is_refused(tmp_path: Path, frames, name: str, kept: int) -> None:
    """Such as pycolmap reads for ever, or fills up with what lies behind in memory."""
    folder = colmap_model(tmp_path, frames, binary=True) / "sparse"
    file = folder / f"{name}.bin"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ImageError, match="E102"):
        read_model(folder)


def listed_scene(folder: Path, frames, lines: str) -> Path:
    (colmap_model(folder, frames, binary=False) / "pairs.txt").write_text(lines)
    return folder


def test_listed_pairs_are_used_in_the_range_of_their_overlaps(tmp_path: Path, frames) -> None:
    lines = "# name0 name1 overlap\n0.jpg\t1 b.jpg\t0.3 1.5\n1 b.jpg\t0.jpg\t0.7\n0.jpg x.jpg 0.5\n"
    folder = listed_scene(tmp_path, frames, lines.replace(" 1.5", "\t1.5"))
    files = FilesConfig(root=str(folder), pairs="pairs.txt", framing=Framing((480, 640)))
    for overlap, names in (
        ((0.1, 0.5), [("0.jpg", "1 b.jpg")]),
        ((0.3, 0.7), [("0.jpg", "1 b.jpg"), ("1 b.jpg", "0.jpg")]),
    ):
        pairs = training_pairs("colmap", replace(files, overlap=overlap))
        assert [pairs[i].names[0] for i in range(len(pairs))] == names
        assert gray_error(pairs[len(pairs) - 1]) < 0.06
    model = {"root": str(folder / "images"), "index": str(folder / "sparse")}
    apart = replace(files, **model, pairs=str(folder / "pairs.txt"), overlap=(0.0, 1.0))
    assert training_pairs("colmap", apart).counts == (2,)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("0.jpg 1.jpg", r"E201 .*pairs\.txt, line 1: got '0.jpg 1.jpg'"),
        ("\na b much", r"E201 .*pairs\.txt, line 2"),
        ("a.jpg b.jpg 0.5", "E112 .*no pair of two pictures of the model"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path: Path, frames, lines: str, named: str):
    folder = listed_scene(tmp_path, frames, lines)
    with pytest.raises(UsageError, match=named):
        training_pairs("colmap", FilesConfig(root=str(folder), pairs="pairs.txt"))


def test_excluded_pictures_are_never_used_and_scenes_are_told_apart(tmp_path: Path, frames) -> None:
    for name in ("a", "b"):
        listed_scene(tmp_path / name, frames, "0.jpg\t1 b.jpg\t0.5\n")
    (tmp_path / "scenes.txt").write_text("a\nb\n")
    files = FilesConfig(root=str(tmp_path), scenes=str(tmp_path / "scenes.txt"), pairs="pairs.txt")
    pairs = training_pairs("colmap", files)
    assert pairs.counts == (1, 1)
    assert pairs[0, 1].names[0] == ("b/0.jpg", "b/1 b.jpg")
    for pattern, counts in (("a/0.jpg", (0, 1)), ("*/1 *", (0, 0)), ("1 b.jpg", (0, 0))):
        assert training_pairs("colmap", replace(files, exclude=(pattern,))).counts == counts
    with pytest.raises(UsageError, match=r"data\.files\.exclude: got '2\*'"):
        training_pairs("colmap", replace(files, exclude=("2*", "0.jpg")))


@pytest.mark.parametrize("pattern", ["a [1].jpg", "s/a [1].jpg", "a*"])
def test_brackets_in_the_name_of_a_picture_mean_themselves(pattern: str) -> None:
    model = SimpleNamespace(images=[SimpleNamespace(name="a [1].jpg")])
    pairs: Any = SimpleNamespace(names=["s/a [1].jpg"], model=model)
    assert ColmapPairs.named(pairs, pattern).tolist() == [True]


VIEWS = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "views"


@pytest.mark.skipif(not VIEWS.is_dir(), reason="shared/datasets/views is not here")
def test_real_views_give_supervised_pairs() -> None:
    files = FilesConfig(
        root=str(VIEWS / "kitchen"),
        pairs="pairs.txt",
        overlap=(0.3, 0.6),
        framing=Framing((640, 640)),
    )
    pairs = training_pairs("colmap", files)
    assert len(pairs) > 30
    coarse, _ = supervise(pairs[0], stride=8, reach=6.0)
    assert len(coarse.batch) > 100
    assert gray_error(pairs[0]) < 0.1


def test_the_camera_of_a_scaled_photograph_is_scaled(tmp_path: Path, frames) -> None:
    folder = colmap_model(tmp_path, frames, binary=False)
    pairs = ColmapPairs(
        folder / "images", folder / "sparse", overlap=(0.05, 1.0), framing=Framing((480, 640))
    )
    full = pairs[0].geometry
    write_image(folder / "images" / "0.jpg", cv2.resize(frames[0].gray, (320, 240)))
    half = pairs[0].geometry
    assert full is not None
    assert half is not None
    f, cx = frames[0].K[0, 0], frames[0].K[0, 2]
    torch.testing.assert_close(
        half.K0[0, 0], torch.tensor([f / 2, 0, (cx + 0.5) / 2 - 0.5]).float()
    )
    assert torch.equal(half.depth0, full.depth0)
    write_image(folder / "images" / "0.jpg", frames[0].gray.T)
    with pytest.raises(ImageError, match=r"0\.jpg: is 480 x 640, its camera 640 x 480"):
        pairs[0]


def test_observations_of_points_that_are_missing_are_ignored(tmp_path: Path, frames) -> None:
    folder = colmap_model(tmp_path, frames, binary=False) / "sparse"
    before = read_model(folder).images[0].points3d.tolist()
    lines = (folder / "points3D.txt").read_text().splitlines()
    (folder / "points3D.txt").write_text("\n".join(lines[:100] + lines[101:]))
    image = read_model(folder).images[0]
    assert 100 in before
    assert image.points3d.tolist() == [i for i in before if i != 100]
    assert len(image.points2d) == len(before) - 1
    assert len(ColmapPairs(tmp_path / "images", folder, overlap=(0.05, 1.0))) == 1


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
