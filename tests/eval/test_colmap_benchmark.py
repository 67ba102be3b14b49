"""COLMAP models as a benchmark: the pairs that are drawn, their poses, and what leaves none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.benchmarks import load_benchmark
from eval.benchmarks.folder import Benchmark
from eval.benchmarks.options import BenchmarkOptions
from matcher.errors import ImageError, UsageError


def scene(folder: Path, count: int) -> None:
    """A model of `count` pictures side by side, all pairs listed with overlap 0.1 i."""
    (folder / "sparse").mkdir(parents=True)
    (folder / "sparse" / "cameras.txt").write_text("1 PINHOLE 640 480 500 510 320 240\n")
    (folder / "sparse" / "points3D.txt").write_text("7 0 0 5 0 0 0 0.1 1 0\n")
    poses = [f"{i + 1} 1 0 0 0 {-i} 0 0 1 {i}.jpg\n10 10 7\n" for i in range(count)]
    (folder / "sparse" / "images.txt").write_text("".join(poses))
    pairs = [f"{i}.jpg {j}.jpg 0.{i + 1}\n" for i in range(count) for j in range(i + 1, count)]
    (folder / "pairs.txt").write_text("".join(pairs))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    scene(folder / "large", 6)
    scene(folder / "small", 3)
    return folder


def benchmark(root: Path, **options) -> Benchmark:
    values = {"name": "views", "kind": "colmap", "root": str(root), "overlap": (0.0, 1.0)}
    return load_benchmark(BenchmarkOptions(**(values | options)), cache=root)


def scenes(found: Benchmark) -> list[str]:
    return [pair.name.split("/")[0] for pair in found.pairs]


def test_pairs_have_the_pose_and_camera_of_the_model_in_our_pixels(root: Path) -> None:
    pair = next(p for p in benchmark(root).pairs if p.name == "large/1.jpg large/4.jpg")
    assert pair.image1 == root / "large" / "images" / "4.jpg"
    assert pair.K0 is not None
    assert pair.T_0to1 is not None
    np.testing.assert_allclose(pair.K0, [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
    np.testing.assert_allclose(pair.T_0to1[:3, 3], [-3, 0, 0])


def picture(path: Path, width: int, height: int) -> None:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def test_cameras_are_those_of_photographs_that_were_scaled_since(tmp_path: Path) -> None:
    scene(tmp_path / "small", 3)
    for i, (width, height) in enumerate(((640, 480), (320, 240), (160, 120))):
        picture(tmp_path / "small" / "images" / f"{i}.jpg", width, height)
    pair = next(p for p in benchmark(tmp_path).pairs if p.name == "small/0.jpg small/1.jpg")
    assert pair.K0 is not None
    assert pair.K1 is not None
    np.testing.assert_allclose(pair.K0, [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]])
    np.testing.assert_allclose(pair.K1, [[250, 0, 159.5], [0, 255, 119.5], [0, 0, 1]])


def test_a_photograph_of_other_proportions_than_its_camera_is_named(tmp_path: Path) -> None:
    scene(tmp_path / "small", 2)
    picture(tmp_path / "small" / "images" / "1.jpg", 480, 640)
    with pytest.raises(ImageError, match=r"E105 .*1.jpg: is 480 x 640, its camera 640 x 480"):
        benchmark(tmp_path)


def test_scenes_take_turns_until_the_count_is_reached(root: Path) -> None:
    assert sorted(scenes(benchmark(root, count=4))) == ["large", "large", "small", "small"]
    assert scenes(benchmark(root, count=10)).count("small") == 3
    assert len(benchmark(root).pairs) == 18


def test_the_draw_is_always_the_same(root: Path) -> None:
    assert benchmark(root, count=7).pairs[6].name == benchmark(root, count=9).pairs[6].name
    assert benchmark(root, count=7).digest == benchmark(root, count=7).digest


def test_pictures_and_overlap_limit_the_pairs(root: Path) -> None:
    chosen = benchmark(root, pictures=("large/[0-2].jpg",), overlap=(0.15, 0.4))
    assert [pair.name for pair in chosen.pairs] == ["large/1.jpg large/2.jpg"]


def test_a_folder_or_a_choice_that_leaves_nothing_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E112 .*nobody.* leaves no pair"):
        benchmark(root, pictures=("nobody/*",))
    with pytest.raises(UsageError, match=r"E111 .*holds no SCENE/sparse"):
        benchmark(tmp_path)
