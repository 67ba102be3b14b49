"""`python -m eval` from the command line to its files: determinism, kills, caching, methods."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import DISK, LoFTR

from eval.__main__ import main
from eval.benchmarks.folder import Benchmark, read_pairs_with_gt
from eval.benchmarks.sizing import Sizing
from eval.methods import ALL, MethodOptions, MethodUnavailableError, build_method
from eval.predictions import Prediction, prepare
from eval.report.figures import method_colors
from eval.report.gallery import pixel_errors
from matcher.config import (
    BackboneConfig,
    CoarseConfig,
    FineConfig,
    MatcherConfig,
    TransformerConfig,
)
from matcher.errors import UsageError
from matcher.files import only_writer
from matcher.network.model import build_matcher
from matcher.runtime import find_device
from matcher.structures import Matches
from matcher.training.export import export_weights
from tests.helpers.eval_folders import pairs_folder

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(__file__).resolve().parents[3] / "shared"
TINY = MatcherConfig(
    backbone=BackboneConfig(
        initial_dim=8, block_dims=(8, 16, 32), depths=(1, 1, 1), pyramid="lean"
    ),
    transformer=TransformerConfig(layers=("self", "cross"), heads=2, topks=(4, 4, 4), mlp_ratio=1),
    coarse=CoarseConfig(threshold=0.0, border=0),
    fine=FineConfig(window=3, layers=(), heads=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pairs_folder(tmp_path_factory.mktemp("few"), 4)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return pairs_folder(tmp_path_factory.mktemp("many"), 40)


def run(root, output, *words):
    """The exit code of a run without figures."""
    base = ["benchmark=pairs", f"root={root}", f"output={output}", "report=false", "bootstrap=20"]
    return main([*base, *words])


def results(output):
    return json.loads((output / "results.json").read_text())


def test_records_hold_what_repeats_them(folder, tmp_path):
    assert run(folder, tmp_path, "method=rootsift,orb", "protocol=poselib,loftr,magsac") == 0
    records = results(tmp_path)
    assert [(r["method"], r["protocol"]) for r in records] == [
        (method, protocol)
        for method in ("rootsift", "orb")
        for protocol in ("poselib", "magsac", "loftr")
    ]
    for record in records:
        needed = {"pairs", "auc5", "auc10", "auc20", "estimator", "threshold", "image_size"}
        needed |= {"seed", "opencv", "poselib", "weights_sha256", "benchmark", "threshold_unit"}
        needed |= {"maa10", "precision_5e4", "precision_1e4", "matches", "inliers", "failures"}
        needed |= {"auc5_low", "auc5_high", "breakdown"}
        assert needed <= record.keys()
        assert record["auc5_low"] <= record["auc5"] <= record["auc5_high"]
        assert sum(b["pairs"] for b in record["breakdown"]["rotation"]) == record["pairs"] == 4
    by_protocol = {r["protocol"]: r for r in records}
    assert by_protocol["loftr"]["threshold"] == 0.5
    assert by_protocol["loftr"]["threshold_unit"] == "px of the image of K"
    assert by_protocol["poselib"]["estimator"] == "PoseLib LO-RANSAC"
    table = (tmp_path / "table.md").read_text()
    assert "threshold 1 px of the matched image" in table
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert len(rows) == 6 * 4
    assert {"error", "matches", "inliers", "rotation"} <= rows[0].keys()
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert all(t["seconds_median"] > 0 and t["peak_mb"] > 50 for t in timing)


def test_two_runs_differ_in_timing_alone(folder, tmp_path):
    for name in ("a", "b"):
        assert run(folder, tmp_path / name, "method=rootsift", "report=true", "drawn=2") == 0
    files = [
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and path.suffix != ".h5" and not path.name.startswith("timing")
        }
        for name in ("a", "b")
    ]
    assert files[0] == files[1]
    kinds = {Path(name).suffix for name in files[0]}
    assert {".json", ".md", ".csv", ".html", ".png", ".jpg"} <= kinds
    page = files[0]["report.html"].decode()
    for name in files[0]:
        if name.endswith((".png", ".jpg")):
            assert name in page
    assert (tmp_path / "a" / "timing-few0-poselib.png").is_file()


def test_a_method_has_the_same_color_in_all_figures():
    some, all_of_them = method_colors(["mine.safetensors", "orb"]), method_colors([*ALL, "mine"])
    assert some["orb"] == all_of_them["orb"]
    assert len({all_of_them[name] for name in ALL}) == len(ALL)
    assert method_colors(["outdoor", "compact"])["outdoor"] != all_of_them["compact"]


def test_published_protocols_measure_the_network_without_refinement(folder, tmp_path):
    torch.manual_seed(0)
    export_weights(build_matcher(TINY), tmp_path / "tiny.safetensors", 0)
    words = [f"method={tmp_path / 'tiny.safetensors'}", "limit=1", "protocol=poselib,loftr"]
    assert run(folder, tmp_path / "out", *words) == 0
    plain, published = results(tmp_path / "out")
    assert (plain["protocol"], plain["settings"]["refine"]) == ("poselib", "photometric")
    assert (published["protocol"], published["settings"]["refine"]) == ("loftr", "none")
    assert run(folder, tmp_path / "none", *words[:2], "refine=none") == 0
    (alone,) = results(tmp_path / "none")
    assert alone["settings"]["refine"] == "none"


def test_kill_and_resume_give_the_results_of_an_undisturbed_run(many, tmp_path):
    words = ["method=tests.helpers.eval_folders:grid_matches", "protocol=poselib"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "eval", "benchmark=pairs", f"root={many}"]
    command += [f"output={killed}", "report=false", "bootstrap=20", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(done := list(killed.rglob("0*.h5"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("0*.h5")}
    assert 8 <= len(done) <= len(before) < 40
    assert not (killed / "results.json").exists()
    assert run(many, killed, *words) == 0
    assert run(many, whole, *words) == 0
    assert (killed / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_workers_and_bootstrap_leave_point_estimates_alone(folder, tmp_path):
    assert run(folder, tmp_path / "one", "method=rootsift") == 0
    assert run(folder, tmp_path / "two", "method=rootsift", "workers=2") == 0
    assert run(folder, tmp_path / "one", "method=rootsift", "bootstrap=0") == 0
    (without,) = results(tmp_path / "one")
    (two,) = results(tmp_path / "two")
    assert "auc5_low" not in without
    extra = {key for key in two if key.endswith(("_low", "_high"))} | {"bootstrap"}
    assert {k: v for k, v in two.items() if k not in extra} == {
        k: v for k, v in without.items() if k != "bootstrap"
    }


def test_other_configurations_are_kept_apart(folder, tmp_path):
    def folders():
        return {path.name for path in (tmp_path / "predictions").iterdir()}

    assert run(folder, tmp_path, "method=rootsift") == 0
    first = folders()
    assert run(folder, tmp_path, "method=rootsift", "ransac_threshold=2", "limit=2") == 0
    assert folders() == first
    assert run(folder, tmp_path, "method=rootsift", "ratio=0.7") == 0
    assert run(folder, tmp_path, "method=rootsift", "benchmark.max_side=64") == 0
    assert len(folders()) == 3
    settings = [
        json.loads((tmp_path / "predictions" / name / "config.json").read_text())
        for name in folders()
    ]
    assert {s["ratio"] for s in settings} == {0.7, 0.85}


def test_predictions_of_other_threads_and_devices_are_kept_apart(folder, tmp_path, monkeypatch):
    for threads in (1, 2):
        assert run(folder, tmp_path, "method=orb", f"threads={threads}") == 0
        (timing,) = json.loads((tmp_path / "timing.json").read_text())
        assert (timing["threads"], timing["device"]) == (threads, "cpu")
    assert len(list((tmp_path / "predictions").iterdir())) == 2
    benchmark = Benchmark("pairs", "pairs", read_pairs_with_gt(folder), Sizing())
    jobs, method = [], build_method("orb", MethodOptions())
    for device in ("cpu", "cuda", "cpu"):
        monkeypatch.setattr(method, "device", device)
        options = MethodOptions()
        to = tmp_path / "jobs"
        jobs.append(prepare(to, benchmark, method, options, threads=1, overwrite=False))
    assert jobs[0].folder == jobs[2].folder != jobs[1].folder
    assert json.loads((jobs[1].folder / "config.json").read_text())["device"] == "cuda"


@pytest.mark.parametrize("method", ["starved", "refusing"])
def test_a_pair_that_does_not_fit_into_memory_is_a_listed_failure(folder, tmp_path, method):
    assert run(folder, tmp_path, f"method=tests.helpers.eval_folders:{method}") == 0
    (record,) = results(tmp_path)
    failed = [line for line in record["failures"] if "E131" in line]
    assert len(failed) == (2 if method == "starved" else 4)
    assert all("out of memory" in line for line in failed)
    assert (record["pairs"], record["auc20"]) == (4, 0)


def test_damaged_predictions_are_computed_again(folder, tmp_path):
    assert run(folder, tmp_path, "method=rootsift") == 0
    expected = (tmp_path / "results.json").read_bytes()
    first, second = sorted(tmp_path.rglob("0*.h5"))[:2]
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(sorted(tmp_path.rglob("0*.h5"))[2].read_bytes())
    assert run(folder, tmp_path, "method=rootsift") == 0
    assert (tmp_path / "results.json").read_bytes() == expected


def test_unreadable_images_are_listed_failures(tmp_path):
    root = pairs_folder(tmp_path / "folder", 3)
    (root / "images" / "pair001_0.png").write_bytes(b"nothing")
    (root / "images" / "pair002_1.png").unlink()
    assert run(root, tmp_path / "out", "method=rootsift") == 0
    (record,) = results(tmp_path / "out")
    assert record["pairs"] == 3
    assert len(record["failures"]) >= 2
    assert "E101" in "".join(record["failures"])
    assert "E111" in "".join(record["failures"])
    assert record["auc20"] <= 100 / 3


def test_absent_weights_are_named_not_skipped(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = "kornia_disk,kornia_loftr_indoor,outdoor,orb"
    assert run(folder, tmp_path / "out", f"method={names}") == 0
    status = {r["method"]: r["status"] for r in results(tmp_path / "out")}
    assert status == {
        "kornia_disk": "unavailable",
        "kornia_loftr_indoor": "unavailable",
        "outdoor": "unavailable",
        "orb": "ok",
    }
    table = (tmp_path / "out" / "table.md").read_text()
    assert "`kornia_disk` is unavailable" in table


def test_kornia_methods_run_with_weights_that_are_there(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save({"state_dict": LoFTR(pretrained=None).state_dict()}, hub / "loftr_outdoor.ckpt")
    torch.save({"extractor": DISK().state_dict()}, hub / "depth-save.pth")
    image = np.random.default_rng(0).integers(0, 255, (64, 70, 3), dtype=np.uint8)
    for name in ("kornia_loftr_outdoor", "kornia_disk"):
        method = build_method(name, MethodOptions(keypoints=64))
        matches = method(image, image)
        assert isinstance(matches, Matches)
        assert method(image, image[:7, :9]).reason == "too_few_keypoints"
        assert method.weights_sha256 == method.settings["weights_sha256"]
        assert method.device == str(find_device(None))
        with pytest.raises(UsageError, match="E201 device: got 'nowhere'"):
            build_method(name, MethodOptions(device="nowhere"))
        if name == "kornia_disk":
            torch.testing.assert_close(matches.keypoints0, matches.keypoints1)
            assert len(matches) > 10


@pytest.mark.parametrize("name", ["orb", "rootsift"])
def test_an_image_of_a_pixel_has_no_match(name):
    image = np.random.default_rng(0).integers(0, 255, (64, 70, 3), dtype=np.uint8)
    matches = build_method(name, MethodOptions())(image[:1, :1], image)
    assert matches.reason == "too_few_keypoints"


def test_own_weights_by_path_run_under_every_protocol(folder, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    export_weights(build_matcher(TINY), weights, 0)
    words = [f"method={weights}", "protocol=poselib,loftr", "limit=2"]
    words.append("benchmark.max_side=120")
    assert run(folder, tmp_path / "out", *words) == 0
    poselib, loftr = results(tmp_path / "out")
    assert poselib["weights_sha256"] == loftr["weights_sha256"]
    assert len(poselib["weights_sha256"]) == 64
    assert not poselib["settings"]["padded"]
    assert loftr["settings"]["padded"]
    assert min(poselib["matches"], loftr["matches"]) > 0
    assert run(folder, tmp_path / "out", *words, "threshold=1.0") == 0
    assert results(tmp_path / "out")[0]["matches"] == 0
    assert results(tmp_path / "out")[1]["matches"] == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["method=rootsfit"], "rootsfit"),
        (["method=tests.helpers.eval_folders:nothing"], "nothing"),
        (["protocol=poselip"], "poselib"),
        (["limit=0"], "limit"),
        (["root=/nowhere"], "/nowhere"),
        (["bootstap=3"], "bootstrap"),
        (["ransac_threshold=-1"], "threshold"),
        (["seed=-1"], "E201 seed"),
        (["+benchmark.foo=1"], "E202 benchmark.foo"),
        (["benchmark.overlap=5"], "E201 benchmark.overlap"),
        (["benchmark.max_side=0"], "E201 benchmark.max_side"),
        (["benchmark=synthetic", "benchmark.size=[5]"], "E201 benchmark.size"),
        (["benchmark=synthetic", "benchmark.size=5"], "E201 benchmark.size"),
        (["benchmark=synthetic", "benchmark.size=[a,5]"], "E201 benchmark.size"),
        (["benchmark=synthetic", "benchmark.max_side=64"], "one of size, max_side and min_side"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(folder, tmp_path, capsys, words, named):
    assert run(folder, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1


def test_without_matplotlib_a_report_is_refused_and_the_rest_runs(
    folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("eval._report", "eval.figures"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert run(folder, tmp_path, "method=orb", "report=true") == 2
    assert list(tmp_path.iterdir()) == []
    error = capsys.readouterr().err
    assert error.startswith("E210 report=true: needs matplotlib")
    assert "quadmatch[dev]" in error
    assert run(folder, tmp_path, "method=orb") == 0


def test_two_evaluations_do_not_write_to_one_folder(folder, tmp_path, capsys):
    with only_writer(tmp_path, "wait"):
        assert run(folder, tmp_path, "method=orb") == 2
    assert "E207" in (error := capsys.readouterr().err)
    assert "another output" in error
    assert not (tmp_path / "results.json").exists()
    assert run(folder, tmp_path, "method=orb") == 0


def test_results_do_not_lie_among_the_data_nor_replace_them(folder, tmp_path, capsys):
    listed = folder / "pairs_with_gt.txt"
    before = listed.read_bytes()
    assert run(folder, tmp_path, "method=orb", f"document={listed}") == 2
    assert "E201 document" in capsys.readouterr().err
    assert run(folder, folder, "method=orb") == 2
    assert "E205 output=" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(folder, tmp_path, "method=orb", f"document={tmp_path / 'file' / 'a.md'}") == 4
    (tmp_path / "taken" / "table.md").mkdir(parents=True)
    assert run(folder, tmp_path / "taken", "method=orb") == 4
    assert not list(tmp_path.rglob("0*.h5"))
    assert listed.read_bytes() == before


def test_weights_and_data_of_any_name_can_be_reported(folder, tmp_path):
    data = tmp_path / ("100% #1 $b_{$ " + "x" * 220)
    shutil.copytree(folder, data)
    assert run(data, tmp_path / "out", "method=orb", "report=true", "limit=2") == 0
    page = (tmp_path / "out" / "report.html").read_text()
    sources = re.findall("src='(.*?)'", page)
    assert len(sources) >= 3
    assert all((tmp_path / "out" / source).is_file() for source in sources)
    assert not any(set(source) & set("#%?") for source in sources)


@pytest.mark.parametrize(("drawn", "pairs", "pictures"), [(6, 1, 1), (1, 4, 1), (3, 4, 3)])
def test_as_many_pairs_are_drawn_as_are_asked_for(folder, tmp_path, drawn, pairs, pictures):
    words = ["method=orb", "report=true", f"drawn={drawn}", f"limit={pairs}"]
    assert run(folder, tmp_path, *words) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == pictures


def test_names_and_data_are_looked_up_before_anything_is_matched(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "method=orb,rootsfit") == 2
    assert "E203 rootsfit" in capsys.readouterr().err
    words = ["benchmark=warps,hpatches", "benchmark.count=1", "method=orb", f"output={tmp_path}"]
    assert main(words) == 2
    assert "E111 datasets/hpatches" in capsys.readouterr().err
    assert not list(tmp_path.rglob("0*.h5"))


def test_results_say_what_they_replace(folder, tmp_path, capsys):
    document = tmp_path / "a.md"
    words = [folder, tmp_path / "out", "method=orb", "limit=1", f"document={document}"]
    assert run(*words) == 0
    first = capsys.readouterr().out
    assert f"\n{document}\n" in first
    assert "(replaced)" not in first
    assert run(*words, "report=true") == 0
    assert capsys.readouterr().out.count("(replaced)") == 2
    assert run(*words) == 0
    assert "of an earlier evaluation" in capsys.readouterr().out.replace("\n  ", " ")


def test_photographs_to_render_from_are_kept_apart_from_results(folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    shutil.copytree(folder / "images", photos)
    words = ["benchmark=warps", f"root={photos}", "method=orb"]
    assert main([*words, f"output={photos / 'outputs' / 'eval'}"]) == 2
    assert "E205 output=" in capsys.readouterr().err
    assert not (photos / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["benchmark="], "E201 benchmark"),
        (["benchmark=pairs,strecha", "benchmark.root=/data"], "E201 root"),
    ],
)
def test_no_benchmark_and_a_root_for_two_are_refused(tmp_path, capsys, words, told):
    assert main([*words, f"output={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(told)


def test_unknown_benchmark_names_the_nearest(capsys):
    assert main(["benchmark=scannet150"]) == 2
    assert "scannet1500" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "megadepth1500" in capsys.readouterr().out


def test_unavailable_method_survives_a_process_boundary():
    import pickle

    error = MethodUnavailableError("kornia_disk", "no weights")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_colors_of_drawn_matches_are_epipolar_distances(folder):
    pair = read_pairs_with_gt(folder)[0]
    size = (128, 96)
    points = torch.tensor([[40.0, 30.0], [80.0, 60.0]])
    matches = Matches(points, points, torch.ones(2))
    errors = pixel_errors(pair, Prediction(matches, size, size, 0.0, 0.0, 0.0))
    assert errors.shape == (2,)
    assert np.isfinite(errors).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/eval, which is not distributed")
def test_real_pairs_have_an_upright_ground_truth(tmp_path):
    assert run(SHARED / "eval" / "strecha", tmp_path, "method=rootsift", "limit=2") == 0
    (record,) = results(tmp_path)
    assert record["dataset"] == "strecha"
    assert record["auc5"] > 80
    assert record["precision_5e4"] > 0.7
