"""Every layout of every benchmark, read from miniature trees and run end to end."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import torch

from data.real.convert_index import convert
from eval.__main__ import main
from eval.benchmarks import READERS, load_benchmark, textures
from eval.benchmarks.folder import EvalPair, posed_pairs, read_pairs_with_gt
from eval.benchmarks.options import BenchmarkOptions, Kind
from eval.benchmarks.rendered import sample_photos
from eval.benchmarks.sizing import Sizing
from eval.depth_truth import measure_against_depth
from eval.measure import measure_pair
from eval.predictions import Prediction
from eval.protocols import protocol_named
from matcher.errors import UsageError
from matcher.geometry.epipolar import normalized_epipolar_error
from matcher.geometry.transforms import warp
from matcher.structures import Matches
from tests.helpers.eval_folders import exact_matches, pair_line, pairs_folder, relative_pose
from tests.helpers.miniature import (
    SCANNET_SCENES,
    Frame,
    megadepth_tree,
    rendered_scenes,
    scannet_tree,
    write_image,
)

COLMAP_ORIGIN = np.array([[0.0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def options(kind, root, **more):
    return BenchmarkOptions(kind, kind, str(root), **more)


def run(tmp_path, *words):
    """Results of a run without figures."""
    code = main([f"output={tmp_path / 'out'}", "report=false", "bootstrap=0", *words])
    assert code == 0
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_every_kind_of_benchmark_has_a_reader():
    assert set(get_args(Kind)) == set(READERS)


def test_pairs_folder_is_read_as_written(tmp_path):
    benchmark = load_benchmark(options("pairs", pairs_folder(tmp_path, 3)), cache=tmp_path)
    frame0, frame1 = rendered_scenes(2)[1]
    pair = benchmark.pairs[1]
    assert len(benchmark.pairs) == 3
    np.testing.assert_allclose(pair.T_0to1, relative_pose(frame0, frame1))
    np.testing.assert_allclose(pair.K0, frame0.K)
    assert pair.image1.is_file()


def test_damaged_lists_name_file_and_line(tmp_path):
    root = pairs_folder(tmp_path, 2)
    table = root / "pairs_with_gt.txt"
    lines = table.read_text().splitlines()
    for broken in (lines[1][:-8] + " x", lines[1] + " 1", lines[1].replace("0.0", "nan", 1)):
        table.write_text(f"{lines[0]}\n{broken}\n")
        with pytest.raises(UsageError, match=r"pairs_with_gt\.txt:2"):
            load_benchmark(options("pairs", root), cache=tmp_path)
    table.write_text(f"# names, turns, K, K, T\n\n{lines[0]}\n\nx\n")
    with pytest.raises(UsageError, match=r"pairs_with_gt\.txt:5"):
        load_benchmark(options("pairs", root), cache=tmp_path)
    table.unlink()
    with pytest.raises(UsageError, match="E111"):
        load_benchmark(options("pairs", root), cache=tmp_path)


@pytest.fixture(scope="module")
def scannet(tmp_path_factory):
    """LoFTR's test layout: the miniature scenes under test/, their pairs in one test.npz."""
    root = tmp_path_factory.mktemp("scannet")
    scannet_tree(root / "test", score=False)
    index = root / "test" / "index"
    tables = [dict(np.load(index / f"{scene}.npz")) for scene in SCANNET_SCENES]
    # The first of the two rows: the miniature gives both the pose of the first.
    joined = {name: np.concatenate([t[name][:1] for t in tables]) for name in tables[0]}
    np.savez(root / "test.npz", **joined)
    (index / "intrinsics.npz").rename(root / "intrinsics.npz")
    return root


def test_scannet_poses_from_files_and_index_agree(scannet, tmp_path):
    found = [
        load_benchmark(options("scannet", scannet, pose_source=source), cache=tmp_path).pairs
        for source in ("files", "npz", "auto")
    ]
    assert [len(pairs) for pairs in found] == [2, 2, 2]
    for files, index, auto in zip(*found, strict=True):
        np.testing.assert_allclose(files.T_0to1, index.T_0to1, atol=1e-5)
        np.testing.assert_array_equal(files.T_0to1, auto.T_0to1)
        assert files.K_size == (640, 480)


def test_converted_scannet_indices_are_read_in_place_of_the_others(scannet, tmp_path):
    root = tmp_path / "converted"
    shutil.copytree(scannet, root)
    before = load_benchmark(options("scannet", root), cache=tmp_path)
    for name in ("test.npz", "intrinsics.npz"):
        convert(root / name, root)
        (root / name).unlink()
    after = load_benchmark(options("scannet", root), cache=tmp_path)
    assert after.digest == before.digest
    np.testing.assert_array_equal(after.pairs[0].K0, before.pairs[0].K0)


def test_scannet_runs_in_both_layouts(scannet, tmp_path):
    words = ["benchmark=scannet1500", "method=rootsift", "protocol=loftr,poselib"]
    ours = run(tmp_path, *words, f"root={scannet}")
    assert [r["pairs"] for r in ours] == [2, 2]
    assert {r["image_size"] for r in ours} == {"640x480", "640x480, points scale as x s"}
    pairs = load_benchmark(options("scannet", scannet), cache=tmp_path).pairs
    lines = []
    for pair in pairs:
        names = [str(path.relative_to(scannet)) for path in (pair.image0, pair.image1)]
        T = [*pair.T_0to1[:3, :3].flatten(), *pair.T_0to1[:3, 3]]
        values = [repr(float(v)) for v in (*pair.K0.flatten(), *pair.K1.flatten(), *T)]
        lines.append(" ".join([*names, *values]))
    (scannet / "pairs_calibrated.txt").write_text("\n".join(lines))
    theirs = run(tmp_path, *words, f"root={scannet}")
    (scannet / "pairs_calibrated.txt").unlink()
    for a, b in zip(ours, theirs, strict=True):
        assert {k: a[k] for k in ("auc5", "auc20", "matches")} == {
            k: b[k] for k in ("auc5", "auc20", "matches")
        }
    assert ours[0]["matches"] > 20


@pytest.mark.parametrize("own_images", [False, True])
def test_megadepth_runs_in_loftr_layout(tmp_path, own_images):
    root = megadepth_tree(tmp_path / "tree", own_images=own_images)
    info = root / "assets" / "megadepth_test_1500_scene_info"
    info.parent.mkdir()
    (root / "index").rename(info)
    (info / "list.txt").rename(info / "megadepth_test_1500.txt")
    words = ["benchmark=megadepth1500", "method=orb", "protocol=poselib,loftr", f"root={root}"]
    records = run(tmp_path, *words)
    assert [r["pairs"] for r in records] == [2, 2]
    assert "overlap" in records[0]["breakdown"]
    pairs = load_benchmark(options("megadepth", root), cache=tmp_path).pairs
    assert [pair.overlap for pair in pairs] == [0.3, 0.5]
    assert ("imgs" in str(pairs[0].image0)) == own_images
    frame0, frame1 = rendered_scenes(2)[0]
    np.testing.assert_allclose(pairs[0].T_0to1, relative_pose(frame0, frame1))


@pytest.mark.parametrize("listed", [False, True])
def test_an_index_in_two_forms_is_one(tmp_path, listed):
    index = megadepth_tree(tmp_path) / "index"
    if listed:
        (index / "list.txt").rename(index / "megadepth_test_1500.txt")
    for path in index.glob("*.npz"):
        convert(path, index)
    assert len(load_benchmark(options("megadepth", tmp_path), cache=tmp_path).pairs) == 2


def test_megadepth_runs_in_glue_factory_layout(tmp_path):
    root, views, listed = tmp_path / "megadepth1500", [], []
    for number, pair in enumerate(rendered_scenes(2)):
        names = [f"{number:04d}/{i}.png" for i in (0, 1)]
        listed.append(" ".join(names))
        for name, frame in zip(names, pair, strict=True):
            write_image(root / "images" / name, frame.gray)
            K, T = frame.K + COLMAP_ORIGIN, frame.pose
            values = [*T[:3, :3].flatten(), *T[:3, 3]]
            camera = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
            pose, params = (" ".join(repr(float(v)) for v in part) for part in (values, camera))
            height, width = frame.gray.shape
            views.append(f"{name} {pose} PINHOLE {width} {height} {params}")
    (root / "views.txt").write_text("\n".join(views))
    (root / "pairs.txt").write_text("\n".join(listed))
    frame0, frame1 = rendered_scenes(2)[1]
    pair = load_benchmark(options("megadepth", tmp_path), cache=tmp_path).pairs[1]
    np.testing.assert_allclose(pair.T_0to1, relative_pose(frame0, frame1))
    np.testing.assert_allclose(pair.K1, frame1.K)
    records = run(tmp_path, "benchmark=megadepth1500", "method=rootsift", f"root={root}")
    assert records[0]["pairs"] == 2
    (root / "pairs.txt").write_text("0000/0.png elsewhere.png")
    with pytest.raises(UsageError, match=r"pairs\.txt:1"):
        load_benchmark(options("megadepth", root), cache=tmp_path)


def test_intrinsics_of_colmap_are_moved_by_half_a_pixel(tmp_path):
    K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    table = tmp_path / "pairs_calibrated.txt"
    values = [*K.flatten(), *K.flatten(), *np.eye(3).flatten(), 0, 0, 1]
    table.write_text(" ".join(["a", "b", *map(str, values)]))
    (plain,) = posed_pairs(table, tmp_path)
    (colmap,) = posed_pairs(table, tmp_path, colmap=True)
    assert plain.K0.tolist() == K.tolist()
    for moved in (colmap.K0, colmap.K1):
        assert moved.tolist() == [[500, 0, 319.5], [0, 510, 239.5], [0, 0, 1]]


def test_hpatches_measures_corners_and_matches(tmp_path):
    gray = cv2.cvtColor(rendered_scenes(1, (240, 320))[0][0].gray, cv2.COLOR_GRAY2BGR)
    folder = tmp_path / "v_room"
    write_image(folder / "1.ppm", gray)
    for k in range(2, 7):
        H = np.array([[1, 0.02 * k, 2.0], [-0.02 * k, 1, 3.0], [0, 1e-5 * k, 1]])
        write_image(folder / f"{k}.ppm", cv2.warpPerspective(gray, H, (320, 240)))
        np.savetxt(folder / f"H_1_{k}", H)
    words = ["benchmark=hpatches", "benchmark.min_side=120", f"root={tmp_path}"]
    (record,) = run(tmp_path, *words, "method=rootsift", "protocol=loftr")
    assert record["pairs"] == 5
    assert record["model"] == "homography"
    assert record["corner_error_median"] < 2
    assert record["accuracy_3px"] > 0.8
    assert record["image_size"].startswith("short side 120")


def test_synthetic_needs_no_download(tmp_path):
    words = ["benchmark=synthetic", "benchmark.count=2", "benchmark.size=[160,120]"]
    (record,) = run(tmp_path, *words, "method=rootsift")
    assert record["pairs"] == 2
    assert record["textures"] == "procedural"
    assert {"auc5", "epe_median", "recall_1px", "precision_5px"} <= record.keys()
    assert "overlap" in record["breakdown"]
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| AUC@10 by share of image 0 seen in image 1 |" in table


def test_scenes_are_rendered_anew_when_the_photographs_change(tmp_path):
    photos = tmp_path / "photos"
    asked = options("synthetic", photos, count=1, size=(64, 64), texture_side=64)

    def folders():
        load_benchmark(asked, cache=tmp_path / "cache")
        return len(list((tmp_path / "cache").iterdir()))

    write_image(photos / "a.png", np.zeros((64, 64), np.uint8))
    assert (folders(), folders()) == (1, 1)
    write_image(photos / "b.png", np.ones((64, 64), np.uint8))
    assert folders() == 2
    write_image(photos / "b.png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    assert folders() == 3


def test_photographs_of_a_package_that_is_absent_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UsageError, match=r"E210 benchmark=warps: .*sklearn.*quadmatch\[dev\]"):
        sample_photos()


def test_rendered_pairs_are_of_the_kind_and_overlap_asked_for(tmp_path):
    nothing = Prediction(Matches.empty(), (160, 120), (160, 120), 0, 0, 0)
    shares = []
    for overlap in ((0.05, 0.2), (0.7, 0.9)):
        asked = BenchmarkOptions(
            "wide", "synthetic", count=4, size=(160, 120), overlap=overlap, mix={"room": 1.0}
        )
        pairs = load_benchmark(asked, cache=tmp_path).pairs
        assert all(pair.image0.stem.startswith("room_") for pair in pairs)
        shares.append(
            np.mean([measure_against_depth(p, nothing, Sizing())["overlap"] for p in pairs])
        )
    assert shares[0] < shares[1] - 0.3


def test_exact_matches_of_a_synthetic_pair_are_found_right(tmp_path):
    asked = BenchmarkOptions("synthetic", "synthetic", count=1, size=(160, 120))
    (pair,) = load_benchmark(asked, cache=tmp_path).pairs
    depths = np.load(pair.depth0), np.load(pair.depth1)
    poses = np.eye(4), pair.T_0to1
    frames = [
        Frame(np.zeros_like(depth), depth, K, pose)
        for depth, K, pose in zip(depths, (pair.K0, pair.K1), poses, strict=True)
    ]
    cells = np.stack(np.meshgrid(np.arange(0, 160, 8), np.arange(0, 120, 8)), -1).reshape(-1, 2)
    points0, points1 = (torch.from_numpy(p).float() for p in exact_matches(*frames, cells))
    scores = torch.ones(len(points0))
    for offset, precision in ((0.0, 1.0), (2.0, 0.0)):
        moved = points1 + torch.tensor([offset, 0.0])
        prediction = Prediction(Matches(points0, moved, scores), (160, 120), (160, 120), 0, 0, 0)
        found = measure_against_depth(pair, prediction, Sizing())
        assert found["epe"] == pytest.approx(offset, abs=0.02)
        assert found["precision_1px"] == pytest.approx(precision, abs=0.02)
        assert found["precision_0.25px"] == pytest.approx(precision, abs=0.02)
        assert "converged" not in found
        # The reference leaves out cells on steep surfaces, which count as visible.
        assert abs(found["recall_1px"] - precision) < 0.15
        assert found["recall_3px"] > 0.85
    assert len(points0) > 20
    converged = torch.arange(len(points0)) % 2 == 0
    moved = points1 + torch.where(converged, 0.4, 2.0)[:, None] * torch.tensor([1.0, 0.0])
    matches = Matches(points0, moved, scores, converged=converged, correlation=scores)
    found = measure_against_depth(
        pair, Prediction(matches, (160, 120), (160, 120), 0, 0, 0), Sizing()
    )
    assert found["converged"] == pytest.approx(0.5, abs=0.02)
    assert found["precision_0.5px"] == pytest.approx(0.5, abs=0.05)
    assert found["precision_converged_0.5px"] == pytest.approx(1.0, abs=0.05)
    assert found["precision_converged_0.25px"] < 0.1


def test_textures_are_named_after_their_folder_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert textures(options("warps", ".")) == tmp_path.name
    assert textures(options("synthetic", ".")) == f"procedural and {tmp_path.name}"


def test_warps_are_the_same_every_time(tmp_path):
    words = ["benchmark=warps", "benchmark.count=3", "method=rootsift"]
    first, again = run(tmp_path / "a", *words), run(tmp_path / "b", *words)
    assert first == again
    assert first[0]["corner_error_median"] < 1
    folder = next((tmp_path / "a" / "out" / "rendered").glob("warps-*"))
    assert cv2.imdecode(np.fromfile(folder / "000_0.png", np.uint8), 1).shape == (471, 313, 3)
    assert cv2.imdecode(np.fromfile(folder / "000_1.png", np.uint8), 1).shape == (339, 257, 3)


NO_ROTATIONS = {
    "zero": np.zeros((3, 3)),
    "mirrored": np.diag([1, 1, -1.0]),
    "sheared": np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]),
}


@pytest.mark.parametrize("rotation", NO_ROTATIONS.values(), ids=NO_ROTATIONS)
def test_ground_truth_without_a_rotation_is_refused(tmp_path, scannet, rotation):
    """In every list and file that holds one."""
    T, K = np.eye(4), "300 0 160 0 300 120 0 0 1"
    T[:3, :3] = rotation
    flat = " ".join(map(str, T.ravel()))
    nine = " ".join(map(str, [*rotation.ravel(), 0, 0, 1]))
    for name, lines in {
        "pairs": {"pairs_with_gt.txt": f"a.png b.png 0 0 {K} {K} {flat}"},
        "scannet": {"pairs_calibrated.txt": f"a.png b.png {K} {K} {nine}"},
        "megadepth": {
            "views.txt": f"a.png {nine} PINHOLE 640 480 300 300 160 120",
            "pairs.txt": "a.png a.png",
        },
    }.items():
        (tmp_path / name).mkdir()
        for file, line in lines.items():
            (tmp_path / name / file).write_text(f"{line}\n")
        with pytest.raises(UsageError, match=r"E112 .*\.txt:1: no rotation"):
            load_benchmark(options(name, tmp_path / name), cache=tmp_path)
    copy = tmp_path / "files"
    shutil.copytree(scannet, copy)
    table = dict(np.load(copy / "test.npz"))
    table["rel_pose"] = np.stack([T[:3].ravel()] * len(table["rel_pose"]))
    np.savez(copy / "test.npz", **table)
    with pytest.raises(UsageError, match=r"E112 rel_pose of scene.*: no rotation"):
        load_benchmark(options("scannet", copy, pose_source="npz"), cache=tmp_path)
    for path in (copy / "test" / SCANNET_SCENES[0] / "pose").glob("*.txt"):
        path.write_text(flat)
    with pytest.raises(UsageError, match=r"E112 .*pose/\d+\.txt: no rotation"):
        load_benchmark(options("scannet", copy, pose_source="files"), cache=tmp_path)


@pytest.mark.parametrize("K", ["0 0 160 0 300 120 0 0 1", "300 0 160 0 300 120 0.1 0 1"])
def test_ground_truth_without_a_camera_is_refused(tmp_path, K):
    pose = "1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1"
    (tmp_path / "pairs_with_gt.txt").write_text(f"a.png b.png 0 0 {K} {K} {pose}\n")
    with pytest.raises(UsageError, match=r"E112 .*txt:1: no intrinsics"):
        load_benchmark(options("pairs", tmp_path), cache=tmp_path)


def test_ground_truth_that_is_no_homography_is_refused(tmp_path):
    (tmp_path / "v_wall").mkdir()
    for k in range(2, 7):
        np.savetxt(tmp_path / "v_wall" / f"H_1_{k}", np.diag([1.0, 1, k - 4]))
    with pytest.raises(UsageError, match=r"E112 .*H_1_4: no homography"):
        load_benchmark(options("hpatches", tmp_path), cache=tmp_path)


def test_intrinsics_with_skew_and_of_any_scale_measure_the_same(tmp_path):
    (frame0, frame1), *_ = rendered_scenes(1)
    root = pairs_folder(tmp_path, 1, scenes=1)
    (pair,) = read_pairs_with_gt(root)
    points = exact_matches(frame0, frame1)
    skew = np.array([[1, 0.3, 0], [0, 1, 0], [0, 0, 1.0]])
    (root / "pairs_with_gt.txt").write_text(
        pair_line(
            "a.png",
            "b.png",
            replace(frame0, K=3 * skew @ frame0.K),
            replace(frame1, K=-frame1.K),
        )
    )
    (other,) = read_pairs_with_gt(root)
    moved = points[0] @ skew[:2, :2].T
    for p, K0, K1 in ((points[0], pair.K0, pair.K1), (moved, other.K0, other.K1)):
        errors = normalized_epipolar_error(p, points[1], K0=K0, K1=K1, T_0to1=pair.T_0to1)
        assert errors.max() < 1e-9


def test_the_published_homography_comes_from_the_best_thousand_matches():
    generator = np.random.default_rng(0)
    points = generator.uniform(0, 400, (3000, 2))
    truth = np.array([[1, 0.05, 4.0], [-0.05, 1, 3.0], [0, 0, 1.0]])
    targets = warp(points, truth)
    targets[1000:] += (30.0, 0.0)  # twice as many agree on another homography
    scores = np.linspace(1, 0, len(points))
    matches = Matches(*(torch.tensor(x, dtype=torch.float32) for x in (points, targets, scores)))
    pair = EvalPair("a b", Path("a"), Path("b"), homography=truth)
    prediction = Prediction(matches, (400, 400), (400, 400), 0.0, 0.0, 0.0)
    errors = {
        name: measure_pair(pair, prediction, Sizing(), protocol_named(name))["corner_error"]
        for name in ("loftr", "poselib")
    }
    assert errors["loftr"] < 0.1
    assert errors["poselib"] > 20
