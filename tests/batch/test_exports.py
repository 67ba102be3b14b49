"""Keypoints merged across pairs, hloc's files, COLMAP's database and what can be built from it."""

from __future__ import annotations

import errno
import gc
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from matcher.batch.export import keypoints
from matcher.batch.export.cameras import camera_of_each_size, count_known
from matcher.batch.export.colmap import export_colmap
from matcher.batch.export.hloc import export_hloc, pair_key
from matcher.batch.export.keypoints import merged_keypoints, one_to_one, pair_matches
from matcher.batch.export.packed import pack
from matcher.batch.image_names import Root
from matcher.batch.manifest import ImageFiles, Manifest
from matcher.batch.pairs import PairList
from matcher.batch.run import Run, start_run
from matcher.batch.shards import Shard
from matcher.errors import Code, StorageError, UsageError, require_extra
from matcher.structures import Matches
from tests.helpers.collections_of_pairs import run_of

Rows = dict[tuple[str, str], list[tuple[float, ...]]]


def test_points_of_an_image_in_one_cell_become_one_keypoint(tmp_path: Path) -> None:
    results: Rows = {
        ("a", "b"): [(8, 8, 20.2, 10, 0.9), (16, 8, 30, 10, 0.5)],
        ("b", "c"): [(20.6, 10, 5, 5, 0.3), (40, 40, 7, 7, 0.8)],
        ("a", "c"): [(8, 8, 5.4, 5, 0.1)],
        ("a", "d"): [],
    }
    run = run_of(tmp_path / "run", results)
    with merged_keypoints(run, 2.0) as merged:
        assert merged.counts.tolist() == [2, 3, 2, 0]
        points, scores = zip(*(merged.keypoints(image) for image in range(4)), strict=True)
        matches = [merged.matches(pair) for pair in pair_matches(run)]
    assert points[0].tolist() == [[8, 8], [16, 8]]
    shared = (20.2 * 0.9 + 20.6 * 0.3) / 1.2
    np.testing.assert_allclose(points[1], [[shared, 10], [30, 10], [40, 40]], atol=1e-5)
    np.testing.assert_allclose(scores[1], [0.9, 0.5, 0.8])
    assert points[3].shape == (0, 2)
    assert [index.tolist() for index, _ in matches] == [
        [[0, 0], [1, 1]],
        [[0, 0], [2, 1]],
        [[0, 0]],
        [],
    ]
    np.testing.assert_allclose(matches[1][1], [0.3, 0.8])


def test_a_keypoint_has_one_partner_in_a_pair() -> None:
    index = np.array([[0, 0], [0, 1], [1, 1], [2, 1]])
    assert one_to_one(index, np.array([0.2, 0.9, 0.5, 0.6], np.float32)).tolist() == [1]
    assert one_to_one(index, np.array([0.9, 0.2, 0.6, 0.5], np.float32)).tolist() == [0, 2]
    assert one_to_one(index, np.full(4, 0.5, np.float32)).tolist() == [0, 2]


def test_nothing_merges_to_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {("a", "b"): [], ("b", "b"): [(1, 1, 2, 2, 0.5)]})
    with merged_keypoints(run, 2.0) as merged:
        assert merged.counts.tolist() == [0, 0]
        assert [len(merged.matches(pair)[0]) for pair in pair_matches(run)] == [0, 0]
        assert merged.keypoints(1)[0].shape == (0, 2)


def random_run(folder: Path, images: int, matches: int) -> Run:
    """Each image and the next have so many random matches."""
    rng = np.random.default_rng(0)
    scale = np.array([100, 100, 100, 100, 1])
    names = [(f"{i}.jpg", f"{i + 1}.jpg") for i in range(images - 1)]
    return run_of(folder, {both: rng.uniform(0, 1, (matches, 5)) * scale for both in names})


@pytest.mark.parametrize("points", [100, 10**9])
def test_merging_is_one_keypoint_a_cell_and_close_to_the_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: int
) -> None:
    monkeypatch.setattr(keypoints, "SCRATCH_POINTS", points)
    run = random_run(tmp_path / "run", 4, 1000)
    with merged_keypoints(run, 3.0) as merged:
        found = [merged.keypoints(image)[0] for image in range(4)]
        matched = [(pair, merged.matches(pair)[0]) for pair in pair_matches(run)]
    for points_of_image in found:
        cells = np.floor(points_of_image / 3 + 0.5)
        assert len(np.unique(cells, axis=0)) == len(points_of_image)
    for pair, index in matched:
        assert len(np.unique(index[:, 0])) == len(np.unique(index[:, 1])) == len(index) > 200
        ends = np.hstack([found[pair.image0][index[:, 0]], found[pair.image1][index[:, 1]]])
        original = np.hstack([pair.keypoints0, pair.keypoints1])
        assert np.abs(ends[:, None] - original).max(axis=2).min(axis=1).max() <= 3
    assert not [path.name for path in run.folder.iterdir() if path.name.startswith("tmp")]


def test_exports_hold_few_matches_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 times the matches take little more memory."""
    monkeypatch.setattr(keypoints, "SCRATCH_POINTS", 10_000)
    peaks = []
    for images in (6, 101):
        run = random_run(tmp_path / str(images), images, 4000)
        gc.collect()
        tracemalloc.start()
        export_hloc(run, Root(str(tmp_path)), 1.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    stored = 100 * 4000 * keypoints.BYTES_A_MATCH
    assert peaks[1] - peaks[0] < stored / 4


def test_a_full_disk_while_merging_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keypoints, "_scratch", lambda folder: Full())
    run = random_run(tmp_path / "run", 3, 10)
    with pytest.raises(StorageError, match=r"E401 .*No space"):
        export_hloc(run, Root(str(tmp_path)), 1.0)


def test_hloc_files_hold_what_hloc_reads(tmp_path: Path) -> None:
    results = {
        ("db/a.jpg", "q/b.jpg"): [(8, 8, 20, 10, 0.9), (16, 8, 30, 10, 0.5)],
        ("q/b.jpg", "db/c.jpg"): [(30, 10, 4, 4, 0.7)],
        ("db/a.jpg", "db/c.jpg"): [],
    }
    (tmp_path / "db").mkdir()
    Image.new("L", (64, 48)).save(tmp_path / "db" / "a.jpg")
    run = run_of(tmp_path / "run", results)
    features, matches = export_hloc(run, Root(str(tmp_path)), 2.0)
    with h5py.File(features) as file:
        assert file["db/a.jpg/keypoints"][()].tolist() == [[8, 8], [16, 8]]
        assert file["db/a.jpg/keypoints"].dtype == np.float32
        assert file["db/a.jpg/image_size"][()].tolist() == [64, 48]
        assert file["q/b.jpg/score"][()].tolist() == file["q/b.jpg/scores"][()].tolist()
        assert len(file["q/b.jpg/scores"]) == 2
    with h5py.File(matches) as file:
        for key in ("db-a.jpg/q-b.jpg", "db-a.jpg_q-b.jpg"):
            group = file[key]
            assert group["matches0"][()].tolist() == [0, 1]
            assert group["matches0"].dtype == np.int32
            np.testing.assert_allclose(group["matching_scores0"], [0.9, 0.5], atol=1e-3)
            np.testing.assert_allclose(group["keypoints1"], [[20, 10], [30, 10]])
        assert "converged" not in file["db-a.jpg/q-b.jpg"]
        assert file["q-b.jpg/db-c.jpg/matches0"][()].tolist() == [-1, 0]
        assert file["db-a.jpg/db-c.jpg/matches0"][()].tolist() == [-1, -1]


def test_hloc_and_packed_files_tell_which_matches_converged(tmp_path: Path) -> None:
    pairs = PairList.of([("a", "b"), ("a", "c")])
    images = ImageFiles(np.ones((3, 32), np.uint8))
    manifest = Manifest(2, pairs.sha256, images.sha256, 1, {"refine": "photometric"})
    run = start_run(tmp_path / "run", manifest, pairs, images)
    points = torch.arange(6.0).view(3, 2) * 8
    matches = Matches(
        points,
        points + 1,
        torch.tensor([0.9, 0.8, 0.7]),
        converged=torch.tensor([True, False, True]),
        correlation=torch.tensor([0.9, 0.2, 0.8]),
    )
    run.write(0, Shard.of([matches]))
    run.write(1, Shard.of([Code.UNREADABLE_IMAGE]))
    export_hloc(run, Root(str(tmp_path)), 1.0)
    with h5py.File(run.folder / "matches.h5") as file:
        assert file["a/b/converged"][()].tolist() == [1, 0, 1]
        np.testing.assert_allclose(file["a/b/correlation"], [0.9, 0.2, 0.8])
    with merged_keypoints(run, 1.0, converged_only=True) as merged:
        assert merged.counts.tolist() == [2, 2, 0]
        index, scores = merged.matches(next(pair_matches(run, converged_only=True)))
    assert index.tolist() == [[0, 0], [1, 1]]
    np.testing.assert_allclose(scores, [0.9, 0.7])
    plain = run_of(tmp_path / "plain", {("a", "b"): [(1, 1, 2, 2, 0.5)]})
    with pytest.raises(UsageError, match=r"E201 converged_only: .*refine=none"):
        export_hloc(plain, Root(str(tmp_path)), 1.0, converged_only=True)
    pack(run, tmp_path / "packed.h5")
    with h5py.File(tmp_path / "packed.h5") as file:
        assert file["converged"][()].tolist() == [1, 0, 1]
        assert file["correlation"].shape == file["scores"].shape == (3,)


@pytest.mark.parametrize(
    "names",
    [[("a/b-c", "x"), ("a-b/c", "x")], [("a//b", "c")], [("../a", "b")], [("a\nb", "c")],
     [("a_b", "c"), ("a", "b_c")]],
)  # fmt: skip
def test_names_that_hloc_cannot_tell_apart_are_refused(
    tmp_path: Path, names: list[tuple[str, str]]
) -> None:
    run = run_of(tmp_path / "run", {both: [(1, 1, 2, 2, 0.5)] for both in names})
    with pytest.raises(UsageError, match="E209"):
        export_hloc(run, Root(str(tmp_path)), 2.0)
    assert not (tmp_path / "run" / "matches.h5").exists()
    assert pair_key("a/b", "c") == "a-b/c"


FOCAL, WIDTH, HEIGHT = 400.0, 480, 360


def views(count: int) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Rotations, centers and (count, N, 2) projections of random points in front of an arc."""
    rng = np.random.default_rng(4)
    points = rng.uniform((-2, -1.5, 4), (2, 1.5, 7), (400, 3))
    rotations, centers, seen = [], [], []
    for angle in np.linspace(-0.25, 0.25, count):
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        center = np.array([5.5 * np.sin(angle), 0.3 * angle, 5.5 - 5.5 * np.cos(angle)])
        camera = (points - center) @ rotation.T
        rotations.append(rotation)
        centers.append(center)
        seen.append(camera[:, :2] / camera[:, 2:] * FOCAL + ((WIDTH - 1) / 2, (HEIGHT - 1) / 2))
    return rotations, centers, np.stack(seen)


def aligned_error(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) distances after the similarity that brings `found` to `truth` (Umeyama, 1991)."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a)
    flip = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = np.trace(np.diag(d) @ flip) / (a**2).sum()
    return np.linalg.norm(scale * a @ (u @ flip @ vt).T - b, axis=1)


def reconstruct(folder: Path, images: Path) -> Any:
    pycolmap = pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    (folder / "sparse").mkdir()
    models = pycolmap.incremental_mapping(folder / "database.db", images, folder / "sparse")
    return max(models.values(), key=lambda model: model.num_reg_images())


def test_colmap_reconstructs_views_of_known_cameras(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    count = 5
    _, centers, seen = views(count)
    for i in range(count):
        Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / f"{i}.png")
    inside = ((seen >= 0) & (seen < (WIDTH, HEIGHT))).all(axis=2)
    results = {}
    for i in range(count):
        for j in range(i + 1, count):
            both = inside[i] & inside[j]
            score = np.full((both.sum(), 1), 0.9)
            results[f"{i}.png", f"{j}.png"] = np.hstack([seen[i][both], seen[j][both], score])
    run = run_of(tmp_path / "run", results)
    camera = (FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    database = export_colmap(run, Root(str(tmp_path)), 0.1, camera)
    assert [p.name for p in database.parent.iterdir()] == ["database.db"]
    model = reconstruct(database.parent, tmp_path)
    assert model.num_reg_images() == count
    assert model.compute_mean_reprojection_error() < 0.1
    found = {image.name: image.projection_center() for image in model.images.values()}
    found_centers = np.array([found[f"{i}.png"] for i in range(count)])
    assert aligned_error(found_centers, np.array(centers)).max() < 0.01


def shape_of(database: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Images and their cameras by name."""
    pycolmap = pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    with pycolmap.Database.open(database) as file:
        cameras = {camera.camera_id: camera for camera in file.read_all_cameras()}
        images = {image.name: image for image in file.read_all_images()}
    return images, {name: cameras[image.camera_id] for name, image in images.items()}


def grid(count: int = 40) -> list[tuple[float, ...]]:
    rng = np.random.default_rng(1)
    return [(x, y, x + 2, y + 1, 0.9) for x, y in rng.uniform(5, 50, (count, 2))]


def test_colmap_holds_images_of_every_format_and_name(tmp_path: Path) -> None:
    names = ["a b.webp", "#1.gif", "l'été \\2.jp2", "4.tif", "5.avif", "6.pgm", "sub dir/7.bmp"]
    (tmp_path / "sub dir").mkdir()
    for name in names:
        Image.new("L", (64, 60)).save(tmp_path / name)
    run = run_of(tmp_path / "run", {(names[0], name): grid() for name in names[1:]})
    images, cameras = shape_of(export_colmap(run, Root(str(tmp_path)), 1.0))
    assert sorted(images) == sorted(names)
    assert {(c.width, c.height) for c in cameras.values()} == {(64, 60)}
    assert len({c.camera_id for c in cameras.values()}) == len(names)


def test_one_camera_a_size_turned_or_scaled(tmp_path: Path) -> None:
    sizes = {"a.png": (160, 120), "b.png": (160, 120), "up.png": (120, 160), "half.png": (80, 60)}
    for name, size in sizes.items():
        Image.new("L", size).save(tmp_path / name)
    run = run_of(tmp_path / "run", {("a.png", name): grid() for name in list(sizes)[1:]})
    database = export_colmap(run, Root(str(tmp_path)), 1.0, (150.0, 140.0, 80.5, 59.5))
    _, cameras = shape_of(database)
    assert cameras["a.png"].camera_id == cameras["b.png"].camera_id
    assert len({c.camera_id for c in cameras.values()}) == 3
    expected = {
        "a.png": [150, 140, 81, 60],
        "up.png": [140, 150, 60, 80],
        "half.png": [75, 70, 40.5, 30],
    }
    for name, parameters in expected.items():
        assert cameras[name].params.tolist() == pytest.approx(parameters)
        assert cameras[name].has_prior_focal_length


TABLE = """\
left,150,150,79.5,59.5,OPENCV,-0.1,0.01,0,0
phone
alone.png,140,140,79.5,59.5
"""


def test_images_of_one_row_share_a_camera_with_its_lens(tmp_path: Path) -> None:
    names = ["left/a.png", "left/b.png", "left/small.png", "phone/c.png", "phone/d.png"]
    names += ["alone.png", "stranger.png", "stray.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (80, 60) if "small" in name else (160, 120)).save(tmp_path / name)
    (tmp_path / "cameras.csv").write_text(TABLE)
    run = run_of(tmp_path / "run", {(names[0], name): grid() for name in names[1:]})
    source, root = str(tmp_path / "cameras.csv"), Root(str(tmp_path))
    assert count_known(names, root, source) == len(names) - 2  # Neither stranger nor stray.
    assert count_known(names, root, "exif") == 0
    _, cameras = shape_of(export_colmap(run, Root(str(tmp_path)), 1.0, cameras=source))
    owners = {name: cameras[name].camera_id for name in names}
    assert owners["left/a.png"] == owners["left/b.png"] != owners["left/small.png"]
    assert owners["phone/c.png"] == owners["phone/d.png"]
    assert len(set(owners.values())) == 6
    left = cameras["left/a.png"]
    assert (left.model.name, left.has_prior_focal_length) == ("OPENCV", True)
    assert left.params.tolist() == pytest.approx([150, 150, 80, 60, -0.1, 0.01, 0, 0])
    for name in ("phone/c.png", "stranger.png"):
        assert (cameras[name].model.name, cameras[name].has_prior_focal_length) == (
            "SIMPLE_RADIAL",
            False,
        )
        assert cameras[name].params.tolist() == pytest.approx([1.2 * 160, 80, 60, 0])


def test_the_size_of_a_camera_is_the_one_whose_middle_it_looks_through() -> None:
    sizes = {"a": (100, 200), "b": (100, 200), "c": (200, 100)}
    cameras = camera_of_each_size((50.0, 60.0, 98.0, 51.0), sizes)
    assert cameras == {(200, 100): (50.0, 60.0, 98.0, 51.0), (100, 200): (60.0, 50.0, 49.5, 99.5)}
    rounded = camera_of_each_size(
        (3000.0, 3000.0, 2999.5, 1999.5), {"a": (6000, 4000), "b": (1024, 683)}
    )
    assert rounded[1024, 683][:2] == pytest.approx((512, 512), rel=1e-3)
    with pytest.raises(UsageError, match=r"E201 K: .*d has 160 x 100 pixels, others 200 x 100"):
        camera_of_each_size((50.0, 50.0, 99.5, 49.5), {"c": (200, 100), "d": (160, 100)})


@pytest.mark.parametrize(
    ("count", "size"),
    [(5, (640, 480)), (5, (160, 120)), pytest.param(200, (1500, 1000), marks=pytest.mark.slow)],
)
def test_random_matches_are_never_verified(
    tmp_path: Path, count: int, size: tuple[int, int]
) -> None:
    """Pairs of 100 to 400 random matches."""
    pycolmap = pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    rng = np.random.default_rng(3)
    names = [f"{i}.png" for i in range(21)]
    for name in names:
        Image.new("L", size).save(tmp_path / name)
    pairs = [(a, b) for a in names for b in names if a < b][:count]
    scale = np.array([*size, *size, 1])
    results = {both: rng.uniform(0, 1, (rng.integers(100, 401), 5)) * scale for both in pairs}
    run = run_of(tmp_path / "run", results)
    for camera in (None, (500.0, 500.0, (size[0] - 1) / 2, (size[1] - 1) / 2)):
        database = export_colmap(run, Root(str(tmp_path)), 1.0, camera)
        with pycolmap.Database.open(database) as file:
            assert file.num_matched_image_pairs() == count
            assert file.num_verified_image_pairs() == 0


def test_colmap_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    for name in ("a.png", "b.gif"):
        Image.new("L", (64, 60)).save(tmp_path / name)
    run = run_of(tmp_path / "run", {("a.png", "b.gif"): grid()})
    level = pycolmap.logging.minloglevel
    export_colmap(run, Root(str(tmp_path)), 1.0)
    assert capfd.readouterr() == ("", "")
    assert pycolmap.logging.minloglevel == level


def test_pair_matches_skips_what_has_none(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {("a", "b"): [(1, 1, 2, 2, 0.5)], ("a", "c"): []})
    assert [(p.image0, p.image1, len(p.scores)) for p in pair_matches(run)] == [
        (0, 1, 1),
        (0, 2, 0),
    ]


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(UsageError, match=r"E210 .*quadmatch\[sfm\]"):
        require_extra("no_such_module_at_all", "sfm", "export=colmap")
