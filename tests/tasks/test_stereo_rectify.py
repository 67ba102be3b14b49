"""Two photographs to a rectified pair and a cloud of points: any order, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from matcher.errors import UsageError
from matcher.geometry.cameras import Camera
from matcher.geometry.transforms import warp
from matcher.tasks.stereo.__main__ import main
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.photographs import Photograph, read_photograph, rectify_photographs
from matcher.tasks.stereo.predictor import Disparity
from matcher.tasks.stereo.rectify import Motion, Rectification, rectify
from matcher.tasks.stereo.weights import save_stereo
from tests.helpers.stereo import TINY

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FIRST = Camera("PINHOLE", (500, 505, 310, 245), (640, 480))
SECOND = Camera("PINHOLE", (620, 620, 400, 290), (800, 600))
PLACES = {"right": (1, 0.1, 0), "left": (-1, 0, 0.2), "above": (0.1, -1, 0), "below": (0, 1, 0.1)}


def turned(*degrees: float) -> np.ndarray:
    return cv2.Rodrigues(np.radians(np.array(degrees, dtype=np.float64)))[0]


def seen(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) pixels, and which of them are in the picture."""
    pixels = points @ camera.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    inside = ((pixels >= 0) & (pixels < np.array(camera.size))).all(axis=1) & (points[:, 2] > 0)
    return pixels, inside


def rig(place: tuple[float, ...], rotation: np.ndarray) -> tuple[Rectification, list[np.ndarray]]:
    """A rectification, and points in the first camera with their pixels in both photographs."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-8, -6, 5), (8, 6, 14), (4000, 3))
    center = np.array(place) / np.linalg.norm(place)
    motion = Motion(rotation, -rotation @ center)
    pixels0, inside0 = seen(FIRST, points)
    pixels1, inside1 = seen(SECOND, points @ rotation.T + motion.translation)
    both = inside0 & inside1
    values = [points[both], pixels0[both], pixels1[both]]
    return rectify((FIRST, SECOND), motion, values[1], values[2]), values


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("degrees", [(0, 0, 0), (3, -6, 5), (-4, 8, -20)])
def test_a_point_lies_in_one_row_and_comes_back_from_its_disparity(
    place: str, degrees: tuple[float, ...]
) -> None:
    how, (points, pixels0, pixels1) = rig(PLACES[place], turned(*degrees))
    ordered = (pixels1, pixels0) if how.swapped else (pixels0, pixels1)
    left, right = (warp(p, h) for p, h in zip(ordered, (how.left, how.right), strict=True))
    np.testing.assert_allclose(left[:, 1], right[:, 1], atol=1e-6)
    disparity = left[:, 0] - right[:, 0]
    assert np.mean(disparity >= 0) > 0.97
    assert np.mean(disparity <= how.most) > 0.97
    if place in ("right", "left"):
        assert how.swapped == (place == "left")
    depth = how.focal / (disparity + how.offset)
    rays = np.column_stack([left - np.array(how.center), np.full(len(left), how.focal)])
    there = (rays / how.focal * depth[:, None]) @ how.pose[:, :3].T + how.pose[:, 3]
    np.testing.assert_allclose(there, points, rtol=1e-6, atol=1e-6)


def test_points_of_a_depth_map_are_scaled_by_the_baseline() -> None:
    how, _ = rig(PLACES["left"], turned(3, -6, 5))
    depth = np.zeros(how.size[::-1])
    depth[20, 30], depth[40, 10] = 4.0, 6.0
    points, known = how.points(depth, 1.0)
    assert points.shape == (2, 3)
    assert known.sum() == 2
    np.testing.assert_allclose(how.points(2.5 * depth, 2.5)[0], 2.5 * points)


def test_views_keep_the_resolution_of_the_photographs() -> None:
    how, _ = rig(PLACES["right"], turned(0, 0, 0))
    assert 0.8 * 640 < how.size[0] <= 800
    assert 0.8 * 480 < how.size[1] <= 800


@pytest.mark.parametrize("place", [(0.0, 0, 1), (0.2, 0.1, -1), (-0.3, 0, 1)])
def test_a_camera_that_went_forward_is_refused(place: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="E222 rectify: the cameras stand one behind the other"):
        rig(place, turned(1, 2, 0))


def test_sizes_and_intrinsics_shrink_together(tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    cv2.imwrite(str(path), np.zeros((300, 800, 3), np.uint8))
    pixels, camera = read_photograph(str(path), 200, (820.0, 810.0, 399.5, 149.5))
    assert pixels.shape == (75, 200, 3)
    np.testing.assert_allclose(camera.K, [[205, 0, 99.5], [0, 202.5, 37], [0, 0, 1]])
    usual = read_photograph(str(path), 200).camera.K
    assert usual[0, 0] == pytest.approx(1.2 * 200)


def demo(name: str) -> Photograph:
    return read_photograph(str(ASSETS / name), 400)


def test_the_demo_pair_is_rectified_in_either_order() -> None:
    first, second = demo("demo0.jpg"), demo("demo1.jpg")
    there, back = (
        rectify_photographs(first, second, "cpu"),
        rectify_photographs(second, first, "cpu"),
    )
    assert there.rectification.swapped is not back.rectification.swapped
    for pair in (there, back):
        assert len(pair.points[0]) > 300
        assert pair.row_error < 0.7
    np.testing.assert_allclose(there.rectification.size, back.rectification.size, rtol=0.1)


def test_disparity_counts_where_both_photographs_reach_and_matches_speak_for_it() -> None:
    pair = rectify_photographs(demo("demo0.jpg"), demo("demo1.jpg"), "cpu")
    width, height = pair.rectification.size
    nothing = np.zeros((height, width), np.float32)
    left, right = pair.points
    middle = float(np.median((left - right)[:, 0]))
    told = pair.told(Disparity(nothing + np.float32(middle), nothing))
    assert 0.2 < told.occluded.mean() < 0.8
    assert told.occluded[:, : int(middle)].all()
    assert told.occluded[~pair.filled[0]].all()
    assert pair.told(Disparity(nothing + np.float32(0.9 * width), nothing)).occluded.all()
    assert pair.agreement(Disparity(nothing + np.float32(middle), nothing)) > 0.05
    assert pair.agreement(Disparity(nothing + np.float32(width), nothing)) == 0


def twice(photograph: Photograph) -> Photograph:
    return photograph


def rotated(photograph: Photograph) -> Photograph:
    K = photograph.camera.K
    homography = K @ turned(2, 6, 3) @ np.linalg.inv(K)
    size = photograph.camera.size
    return replace_pixels(photograph, cv2.warpPerspective(photograph.pixels, homography, size))


def noise(photograph: Photograph) -> Photograph:
    shape = photograph.pixels.shape
    blurred = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    blurred = cv2.GaussianBlur(blurred, (0, 0), 3) * 6 - 640
    return replace_pixels(photograph, blurred.clip(0, 255).astype(np.uint8))


def replace_pixels(photograph: Photograph, pixels: np.ndarray) -> Photograph:
    return photograph._replace(pixels=pixels)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (twice, "the same picture twice"),
        (rotated, "stand at one place"),
        (noise, "two views of one scene"),
    ],
)
def test_photographs_that_give_no_depth_are_refused_in_one_line(
    change: Callable[[Photograph], Photograph], told: str
) -> None:
    first = demo("demo0.jpg")
    with pytest.raises(UsageError, match="E222 rectify: ") as error:
        rectify_photographs(first, change(first), "cpu")
    assert told in str(error.value)


def test_one_command_leads_from_two_photographs_to_a_cloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = Stereo(TINY)
    with torch.no_grad():
        model.matching.dustbin.fill_(-50.0)
        bias = model.refinement.occlusion.bias
        assert bias is not None
        bias.fill_(-9.0)
    save_stereo(tmp_path / "tiny.safetensors", model)
    paths = {name: tmp_path / name for name in ("d.npz", "p.png", "v.jpg", "c.ply")}
    given = [f"output={paths['d.npz']}", f"picture={paths['p.png']}", f"views={paths['v.jpg']}"]
    given += [f"cloud={paths['c.ply']}", f"weights={tmp_path / 'tiny.safetensors'}"]
    demos = [str(ASSETS / f"demo{i}.jpg") for i in (0, 1)]
    assert main([*demos, "rectify=true", "side=320", "device=cpu", *given]) == 0
    said = capsys.readouterr().out
    assert "scale unknown" in said
    assert "focal length assumed" in said
    with np.load(paths["d.npz"]) as archive:
        assert set(archive) == {"disparity", "occlusion", "depth"}
        count = int((archive["depth"] > 0).sum())
    assert f"element vertex {count}\n".encode() in paths["c.ply"].read_bytes()
    assert cv2.imread(str(paths["v.jpg"])).shape[1] > 700
    assert paths["p.png"].is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["K=[500,500,320,240]"], "rectify=true"),
        (["views=v.png"], "rectify=true"),
        (["rectify=true", "offset=3"], "offset"),
        (["rectify=true", "K=[0,500,320,240]"], "fx and fy above 0"),
        (["rectify=true", "K=[5,5,3,2]", "K0=[5,5,3,2]"], "either K for both"),
    ],
)
def test_words_that_do_not_go_together_are_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["a.png", "b.png", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
