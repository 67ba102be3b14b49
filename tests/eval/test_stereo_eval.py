"""Figures of stereo, by hand, and the whole evaluation on a few small pairs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eval import stereo
from eval.stereo import SGBM, Estimate, errors_of, filled, main, mean_iou, score, sgbm
from matcher.drawing.matches import write_picture
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.files import write_disparity
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.structures import StereoPair
from matcher.tasks.stereo.weights import save_stereo


def pair_of(truth: list[float], occluded: list[bool]) -> StereoPair:
    disparity = torch.tensor([[truth]])
    image = torch.zeros(1, 1, 1, len(truth))
    return StereoPair(image, image, disparity, torch.tensor([[occluded]]), disparity > 0)


def estimate_of(disparity: list[float], occluded: list[bool]) -> Estimate:
    found = np.array([[True, True, False, True, True]])
    return Estimate(np.array([disparity]), np.array([occluded]), found)


def test_the_figures_of_five_pixels_are_those_by_hand() -> None:
    pair = pair_of([10, 100, 50, 0, 20], [False, False, True, False, False])
    estimate = estimate_of([11, 104, 60, 3, 20], [False, False, True, True, True])
    s = score([errors_of(estimate, pair, 2.0)])
    assert s.end_point == pytest.approx((1 + 4 + 0) / 3)
    assert s.bad3 == pytest.approx(100 / 3)
    assert s.d1 == pytest.approx(25)  # 104 is within 5%, the occluded 60 is not
    assert s.occlusion_iou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert s.density == pytest.approx(80)
    assert s.seconds == 2.0


def test_pairs_are_pooled_by_pixels() -> None:
    pair = pair_of([10, 10, 10, 10, 10], [False] * 5)
    good = errors_of(estimate_of([10] * 5, [False] * 5), pair)
    bad = errors_of(estimate_of([20] * 5, [False] * 5), pair)
    assert score([good, bad]).bad3 == pytest.approx(50)
    assert score([good, good, bad]).end_point == pytest.approx(10 / 3)


def test_the_interval_comes_from_drawing_pairs_anew() -> None:
    pair = pair_of([10, 10, 10, 10, 10], [False] * 5)
    good = errors_of(estimate_of([10] * 5, [False] * 5), pair)
    bad = errors_of(estimate_of([20] * 5, [False] * 5), pair)
    assert score([good]).bad3_range is None
    assert score([good, good, good]).bad3_range == (0.0, 0.0)
    interval = score([good, bad] * 50).bad3_range
    assert interval is not None
    assert interval == pytest.approx((40, 60), abs=2)


def test_occlusion_is_not_judged_without_truth() -> None:
    assert math.isnan(mean_iou(np.array([[5, 3], [0, 0]])))
    assert mean_iou(np.array([[5, 0], [0, 2]])) == 1


def test_holes_take_the_lower_neighbor() -> None:
    disparity = np.array([[9.0, -1, -1, 4, -1], [-1, -1, -1, -1, -1]])
    assert filled(disparity, disparity >= 0).tolist() == [[9, 4, 4, 4, 4], [0] * 5]


def test_sgbm_finds_a_constant_shift_up_to_the_left_border() -> None:
    texture = torch.rand(1, 1, 80, 260, generator=torch.Generator().manual_seed(0))
    texture = F.avg_pool2d(texture, 3, 1, 1)[0, 0].numpy()
    found = sgbm(texture[:, :240], texture[:, 12:252])
    inner = found.disparity[8:-8, 20:-8]
    assert np.median(np.abs(inner - 12)) < 0.1
    assert SGBM["P2"] == 4 * SGBM["P1"]


def test_the_program_reports_each_method_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    config = StereoConfig(
        channels=8, fine_channels=8, deep_channels=8, layers=1, heads=2, refine_channels=8
    )
    save_stereo(tmp_path / "tiny.safetensors", Stereo(config))
    words = ["rendered=2", "height=64", "width=128", f"weights={tmp_path / 'tiny.safetensors'}"]
    assert main([*words, f"output={tmp_path / 'scores.json'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("2 rendered 64 x 128") == 2
    report = json.loads((tmp_path / "scores.json").read_text())
    (scores,) = report["scores"].values()
    assert set(scores) == {"StereoSGBM", "quadtree"}
    assert all(0 <= s["bad3"] <= 100 for s in scores.values())


def test_a_pair_without_a_word_on_occlusion_has_figures_that_json_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = np.random.default_rng(0).integers(0, 255, (32, 64), np.uint8)
    pair, scores = tmp_path / "data" / "000046", tmp_path / "scores.json"
    pair.mkdir(parents=True)
    for name in ("left.png", "right.png"):
        write_picture(pair / name, np.repeat(views[..., None], 3, axis=2))
    for disparity, seen in ((3.0, True), (0.0, False)):
        write_disparity(pair / "disparity.png", np.full(views.shape, disparity, np.float32))
        words = ["weights=none", "rendered=0", f"real={tmp_path / 'data'}", f"output={scores}"]
        assert main(words) == 0
        told = capsys.readouterr()
        assert ("(replaced)" in told.out) is not seen
        assert told.err == ""
        report = json.loads(scores.read_text(), parse_constant=pytest.fail)
        figures = report["scores"]["000046"]["StereoSGBM"]
        assert figures["occlusion_iou"] is None
        assert (figures["end_point"] is not None) is seen


def test_scenes_of_scene_flow_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)
    for side in ("left", "right"):
        for form, name in (("frames_finalpass", "0006.png"), ("disparity", "0006.pfm")):
            path = tmp_path / form / "TRAIN" / side / name
            path.parent.mkdir(parents=True)
            if path.suffix == ".png":
                write_picture(path, views)
            else:
                write_disparity(path, np.full((32, 64), 3.0, np.float32))
    assert main(["weights=none", "rendered=0", f"real={tmp_path}"]) == 0
    assert "frames_finalpass/TRAIN/left/0006" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pairs=3"], "known: rendered"),
        (["rendered=some"], "integer"),
        (["real=nowhere"], "nowhere"),
        (["rendered=0"], "E201 rendered: got 0"),
        (["output=left.png"], "a name that ends in .json"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(stereo, "rendered_pairs", None)
    assert main(["weights=none", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
