"""`python -m matcher.tasks.stereo`: files in and out, and what it refuses in one line."""

from __future__ import annotations

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.synthetic.stereo import StereoSceneConfig, StereoScenes
from matcher.errors import CheckpointError
from matcher.images.load import load_image
from matcher.tasks.stereo.__main__ import main, to_points
from matcher.tasks.stereo.check import SureMatches, find_matches, judge
from matcher.tasks.stereo.files import read_disparity
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.picture import draw_disparity
from matcher.tasks.stereo.predictor import Disparity, StereoPredictor
from matcher.tasks.stereo.weights import load_stereo, save_stereo
from matcher.weights.checkpoint import Weights, read_weights, write_weights
from tests.helpers.stereo import TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered pair, its variations, and weights of a tiny network that has learned nothing."""
    root = tmp_path_factory.mktemp("stereo")
    torch.manual_seed(0)
    model = Stereo(TINY)
    with torch.no_grad():
        model.matching.dustbin.fill_(-50.0)
        bias = model.refinement.occlusion.bias
        assert bias is not None
        bias.fill_(-2.0)
    save_stereo(root / "tiny.safetensors", model)
    scenes = StereoScenes(
        StereoSceneConfig(
            sizes=((240, 320),), shares=(1.0,), texture_side=256, procedural=90, misalignment=0.0
        )
    )
    pair = scenes[5]
    left, right = (255 * x[0, 0].numpy() for x in (pair.left, pair.right))
    picture(root / "left.png", left)
    picture(root / "right.png", right)
    picture(root / "narrow.png", right[:, :-10])
    picture(root / "low.png", np.roll(right, 9, axis=0))
    picture(root / "other.png", 255 * scenes[11].right[0, 0].numpy())
    deep = np.round(left * 257).astype(np.uint16)
    (root / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    return root


def picture(path: Path, gray: np.ndarray) -> None:
    path.write_bytes(cv2.imencode(".png", gray.round().astype(np.uint8))[1].tobytes())


def call(folder: Path, left: str, right: str, *words: str) -> int:
    weights = f"weights={folder / 'tiny.safetensors'}"
    return main([str(folder / left), str(folder / right), weights, "device=cpu", *words])


@pytest.mark.parametrize("suffix", [".pfm", ".png", ".npz"])
def test_a_pair_gives_a_disparity_of_its_size(folder: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"disparity{suffix}"
    assert call(folder, "left.png", "right.png", f"output={output}") == 0
    assert read_disparity(output).shape == (240, 320)


def test_a_picture_depth_and_a_cloud_are_written(folder: Path, tmp_path: Path) -> None:
    words = [f"output={tmp_path / 'a.npz'}", f"picture={tmp_path / 'a.png'}"]
    words += [f"cloud={tmp_path / 'a.ply'}", "focal=300", "baseline=0.5"]
    assert call(folder, "left.png", "right.png", *words) == 0
    with np.load(tmp_path / "a.npz") as archive:
        assert set(archive) == {"disparity", "occlusion", "depth"}
        depth, disparity = archive["depth"], archive["disparity"]
        points = int((depth > 0).sum())
        np.testing.assert_allclose((depth * disparity)[depth > 0], 150.0, rtol=1e-4)
    assert f"element vertex {points}\n".encode() in (tmp_path / "a.ply").read_bytes()
    drawn = cv2.imdecode(np.frombuffer((tmp_path / "a.png").read_bytes(), np.uint8), 1)
    assert drawn.shape[1] > 1400


def test_pictures_of_16_bits_are_taken_as_those_of_8(folder: Path) -> None:
    predictor = StereoPredictor(folder / "tiny.safetensors", "cpu")
    left, deep, right = (str(folder / n) for n in ("left.png", "deep.png", "right.png"))
    first, second = predictor.match(left, right), predictor.match(deep, right)
    assert np.abs(first.disparity - second.disparity).mean() < 1.0


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ("left.png", "narrow.png", "sizes 320 x 240 and 310 x 240"),
        ("right.png", "left.png", "swap the two images"),
        ("left.png", "low.png", "not rectified"),
        ("left.png", "left.png", "the same picture twice"),
        ("left.png", "missing.png", "no such file"),
        ("left.png", "tiny.safetensors", "not an image"),
    ],
)
def test_what_is_no_rectified_pair_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], left: str, right: str, told: str
) -> None:
    assert call(folder, left, right) in (2, 3)
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert error.startswith("E")


def test_two_places_without_a_common_part_are_refused() -> None:
    rng = np.random.default_rng(0)
    matches = SureMatches(rng.uniform(-200, 200, 60), rng.uniform(-150, 150, 60), 0.2, 400)
    verdict = judge(matches, 320)
    assert verdict is not None
    assert "do not agree" in verdict[0]
    assert judge(SureMatches(matches.horizontal[:9], matches.vertical[:9], 0.2, 90), 320) is None


def test_views_that_are_all_occluded_have_nothing_in_common(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_stereo(folder / "tiny.safetensors")
    with torch.no_grad():
        bias = model.refinement.occlusion.bias
        assert bias is not None
        bias.fill_(9.0)
    save_stereo(tmp_path / "blind.safetensors", model)
    plain = [np.full((64, 96), level, np.uint8) for level in (90, 160)]
    for name, gray in zip(("a.png", "b.png"), plain, strict=True):
        picture(tmp_path / name, gray)
    words = [f"weights={tmp_path / 'blind.safetensors'}", f"output={tmp_path / 'd.pfm'}"]
    assert main([str(tmp_path / "a.png"), str(tmp_path / "b.png"), *words]) == 2
    assert "100% of the left view are not in the right one" in capsys.readouterr().err
    assert main([str(tmp_path / "a.png"), str(tmp_path / "b.png"), "check=false", *words]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a.png"], "got 1 images"),
        (["a.png", "b.png", "outptu=x.pfm"], "did you mean 'output'"),
        (["a.png", "b.png", "output=x.jpg"], ".jpg"),
        (["a.png", "b.png", "picture=x.gif"], "one of .png, .jpg, .jpeg, .webp"),
        (["a.png", "b.png", "cloud=x.txt", "focal=1", "baseline=1"], "one of .ply"),
        (["a.png", "b.png", "picture=a.png"], "E205 a.png: would replace an input"),
        (["a.png", "b.png", "output=c.png", "picture=./c.png"], "would replace another result"),
        (["a.png", "b.png", "focal=long"], "expected a finite number"),
        (["a.png", "b.png", "focal=1e300", "baseline=1"], "E201 focal"),
        (["a.png", "b.png", "focal=100"], "give both"),
        (["a.png", "b.png", "cloud=x.ply"], "focal= and baseline="),
        (["a.png", "b.png", "check=perhaps"], "true or false"),
        (["a.png", "b.png", "focal=-3", "baseline=1"], "focal"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_weights_are_read_back_exactly(folder: Path) -> None:
    first = load_stereo(folder / "tiny.safetensors")
    save_stereo(folder / "again.safetensors", first, trained_on="nothing")
    again = load_stereo(folder / "again.safetensors")
    assert again.config == TINY
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert read_weights(folder / "again.safetensors").metadata["trained_on"] == "nothing"


def test_weights_that_do_not_fit_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    tensors, metadata = read_weights(folder / "tiny.safetensors")
    path = tmp_path / "bad.safetensors"
    name = next(iter(tensors))
    rest = {n: t for n, t in tensors.items() if n != name}
    for bad, about, told in (
        (tensors, {**metadata, "model": "matcher"}, "'matcher'"),
        (tensors, {**metadata, "config": '{"depth": 3}'}, "depth"),
        (rest, metadata, f"missing: {name}"),
        ({**tensors, "extra": torch.zeros(1)}, metadata, "unexpected: extra"),
        ({**tensors, name: torch.zeros(2, 2)}, metadata, r"shape: .* \(2, 2\) for"),
        ({**tensors, name: tensors[name] * torch.nan}, metadata, "NaN"),
    ):
        write_weights(path, Weights(bad, about))
        with pytest.raises(CheckpointError, match=told):
            load_stereo(path)


def test_without_bundled_weights_the_file_to_give_is_named(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = tmp_path / "stereo-compact.safetensors"
    monkeypatch.setattr("matcher.tasks.stereo.weights.BUNDLED", there)
    assert main([str(folder / "left.png"), str(folder / "right.png")]) == 2
    error = capsys.readouterr().err
    assert f"E111 {there}" in error
    assert error.count("\n") == 1


def test_weights_without_a_name_are_the_bundled_ones(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matcher.tasks.stereo.weights.BUNDLED", folder / "tiny.safetensors")
    monkeypatch.setattr(socket, "socket", None)
    output = tmp_path / "d.npz"
    images = [str(folder / "left.png"), str(folder / "right.png")]
    assert main([*images, f"output={output}", "device=cpu"]) == 0
    assert output.is_file()


def result(disparity: np.ndarray, occluded: np.ndarray) -> Disparity:
    return Disparity(disparity.astype(np.float32), occluded.astype(np.float32))


def test_points_lie_on_their_rays_at_their_depth() -> None:
    found = result(np.full((5, 7), 2.0), np.eye(5, 7))
    depth = found.depth(focal=10.0, baseline=0.4)
    points, colors = to_points(depth, np.zeros((5, 7, 3), np.uint8), 10.0)
    assert len(points) == len(colors) == 5 * 7 - 5
    np.testing.assert_allclose(points[:, 2], 2.0)
    np.testing.assert_allclose(points[0], [(1 - 3) * 2 / 10, (0 - 2) * 2 / 10, 2.0], rtol=1e-6)


def test_occluded_pixels_alone_are_hatched() -> None:
    occluded = np.zeros((40, 60), bool)
    occluded[:, :20] = True
    left = np.full((40, 60, 3), 120, np.uint8)
    disparity = np.linspace(1, 30, 60)[None].repeat(40, 0)
    drawn = draw_disparity(left, result(disparity, occluded)).astype(int)
    clean = draw_disparity(left, result(disparity, np.zeros_like(occluded))).astype(int)
    panel = drawn[:480, drawn.shape[1] // 2 + 10 :]
    dark = (np.abs(panel - (35, 35, 40)).sum(-1) == 0).mean(0)
    assert dark[: panel.shape[1] // 4].mean() > 0.2
    assert dark[panel.shape[1] // 2 :].max() == 0
    assert clean.shape[1] == drawn.shape[1]


def test_one_picture_saved_twice_is_noticed(folder: Path, tmp_path: Path) -> None:
    """Not equal in every pixel: once as JPEG."""
    again = tmp_path / "again.jpg"
    again.write_bytes(cv2.imencode(".jpg", cv2.imread(str(folder / "left.png")))[1].tobytes())
    left = load_image(str(folder / "left.png")).gray
    matches = find_matches(left, load_image(str(again)).gray)
    assert matches is not None
    verdict = judge(matches, 320)
    assert verdict is not None
    assert verdict[0] == "the same picture twice"


def test_textured_views_that_share_no_row_are_refused() -> None:
    few = SureMatches(np.full(6, 20.0), np.array([0.5, 40, -60, 90, 30, -20]), 0.0, 400)
    verdict = judge(few, 320)
    assert verdict is not None
    assert verdict[0] == "1 of 400 points match along rows"
    assert judge(few._replace(points=100), 320) is None
    assert judge(few._replace(vertical=np.array([0.5, 1, -1, 1, 30, -20])), 320) is None


def test_matches_that_no_geometry_explains_do_not_stop_the_check() -> None:
    rng = np.random.default_rng(3)
    noise = [cv2.GaussianBlur(rng.random((240, 320)).astype(np.float32), (0, 0), 2) for _ in "ab"]
    sharp = [np.clip((x - x.mean()) * 8 + 0.5, 0, 1) for x in noise]
    matches = find_matches(sharp[0], sharp[1])
    assert matches is not None
    assert judge(matches, 320) is not None
