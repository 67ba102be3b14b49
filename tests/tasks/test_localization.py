"""Localization of a rendered view in a model of another one, whose depth is known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycolmap
import pytest
from PIL import Image

from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from matcher.errors import UsageError
from matcher.geometry.cameras import Camera
from matcher.predictor import load_matcher
from matcher.tasks.localization.__main__ import main
from matcher.tasks.localization.localizer import Localizer, Location
from matcher.tasks.localization.scene import read_scene

HEIGHT, WIDTH = SIZE = (240, 320)


class World(NamedTuple):
    """A folder with ``model``, ``photos/a.png`` and ``query.png``."""

    folder: Path
    pose: np.ndarray
    """(4, 4) of the query"""
    K: np.ndarray
    """(3, 3) of the query"""

    @property
    def words(self) -> list[str]:
        folder = self.folder
        return [str(folder / "query.png"), f"model={folder / 'model'}", f"images={folder}/photos"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    config = SyntheticConfig(
        size=SIZE, pairs=1, seed=3, mix={"room": 1.0}, overlap=(0.5, 0.9), strength=0.0
    )
    pair = render(SyntheticScenes(config)[0])
    geometry = pair.geometry
    assert geometry is not None
    (folder / "photos").mkdir()
    for image, path in ((pair.image0, "photos/a.png"), (pair.image1, "query.png")):
        gray = (image[0, 0].clamp(0, 1).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(gray).save(folder / path)
    x, y = np.meshgrid(np.arange(8, WIDTH - 8, 6), np.arange(8, HEIGHT - 8, 6))
    depth = geometry.depth0[0].numpy()[y, x].ravel()
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)[depth > 0]
    K0, K1 = (K[0].double().numpy() for K in (geometry.K0, geometry.K1))
    rays = np.c_[pixels, np.ones(len(pixels))] @ np.linalg.inv(K0).T
    write_model(folder / "model", pixels, rays * depth[depth > 0, None], K0)
    return World(folder, geometry.T_0to1[0].double().numpy(), K1)


def write_model(folder: Path, pixels: np.ndarray, points: np.ndarray, K: np.ndarray) -> None:
    """A model of one image ``a.png`` at the origin that sees all points."""
    model = pycolmap.Reconstruction()
    params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    camera = pycolmap.Camera(
        camera_id=1, model="PINHOLE", width=WIDTH, height=HEIGHT, params=params
    )
    model.add_camera_with_trivial_rig(camera)
    image = pycolmap.Image(name="a.png", keypoints=pixels + 0.5, camera_id=1, image_id=1)
    model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    for number, point in enumerate(points):
        track = pycolmap.Track()
        track.add_element(1, number)
        model.add_point3D(point, track)
    folder.mkdir()
    model.write(folder)


def pose_of(line: str) -> np.ndarray:
    """The (3, 4) pose of a line: name, quaternion w x y z, translation."""
    w, x, y, z, *translation = map(float, line.split()[1:])
    rotation = pycolmap.Rotation3d(np.array([x, y, z, w])).matrix()
    return np.column_stack([rotation, translation])


@pytest.mark.parametrize("known", [True, False])
def test_a_view_is_located_in_a_model(
    world: World, tmp_path: Path, known: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    K = world.K
    words = [f"K=[{K[0, 0]},{K[1, 1]},{K[0, 2]},{K[1, 2]}]"] if known else []
    poses = tmp_path / "poses.txt"
    assert main([*world.words, *words, f"output={poses}", "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "located   1 of 1 photographs" in out
    assert ("focal length" in out) != known
    found = pose_of(poses.read_text())
    turn = pycolmap.Rotation3d(found[:, :3] @ world.pose[:3, :3].T).angle()
    scale = np.linalg.norm(world.pose[:3, 3])
    assert np.degrees(turn) < (0.3 if known else 2.0)
    assert np.linalg.norm(found[:, 3] - world.pose[:3, 3]) < (0.03 if known else 0.2) * scale


def test_what_sees_nothing_of_the_model_is_not_found(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (64, 64)).save(tmp_path / "blank.png")
    assert main([str(tmp_path / "blank.png"), *world.words[1:], "device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "camera    blank.png: not found" in out
    assert "located   0 of 1 photographs" in out


def test_a_photograph_that_cannot_be_read_leaves_the_others_located(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries, poses = tmp_path / "queries", tmp_path / "poses.txt"
    queries.mkdir()
    (queries / "a.png").write_text("no picture")
    (queries / "._b.png").write_text("what macOS keeps beside b.png")
    (queries / "c.nef").write_text("raw")
    (queries / "c.png").symlink_to("nowhere")
    shutil.copy(world.folder / "query.png", queries / "b.png")
    assert main([str(queries), *world.words[1:], f"output={poses}", "device=cpu"]) == 3
    out, err = capsys.readouterr()
    assert "a.png: cannot be read" in out
    assert "located   1 of 3 photographs" in out
    assert "left out  1 .nef" in err
    assert "E101" in err
    assert poses.read_text().startswith("b.png ")


def test_poses_that_were_found_outlive_an_interruption(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poses = tmp_path / "poses.txt"
    for name in "ab":
        (tmp_path / "queries").mkdir(exist_ok=True)
        shutil.copy(world.folder / "query.png", tmp_path / "queries" / f"{name}.png")
    found = Location(world.pose, Camera.of_matrix(world.K, (WIDTH, HEIGHT)), 9, 9, ())
    answers = iter([found])

    def localize(*_: object) -> Location:
        for answer in answers:
            return answer
        raise KeyboardInterrupt

    monkeypatch.setattr(Localizer, "localize", localize)
    assert main([str(tmp_path / "queries"), *world.words[1:], f"output={poses}"]) == 130
    assert poses.read_text().startswith("a.png ")


def test_poses_replace_no_photograph_and_hold_no_name_in_two_words(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = world.words[0]
    for place in (query, world.folder / "photos" / "a.png", world.folder / "model" / "images.bin"):
        assert main([*world.words, f"output={place}"]) == 2
        assert "E205" in capsys.readouterr().err
    shutil.copy(query, tmp_path / "two words.png")
    words = [str(tmp_path / "two words.png"), *world.words[1:], f"output={tmp_path}/poses.txt"]
    assert main(words) == 2
    assert "E209 two words.png: cannot stand in a list of poses" in capsys.readouterr().err


def test_a_view_is_matched_with_the_image_of_the_model_that_shows_the_same(
    world: World, tmp_path: Path
) -> None:
    (a,) = read_scene(str(world.folder / "model"), str(world.folder / "photos"))
    rng = np.random.default_rng(0)
    others = []
    for grain in (2, 9, 40, 160):
        noise = Image.fromarray(rng.integers(0, 255, (grain, grain), dtype=np.uint8))
        path = tmp_path / f"{grain}.png"
        noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)
        others.append(a._replace(name=path.name, path=str(path)))
    localizer = Localizer(load_matcher("compact", device="cpu"), [*others, a], most=1)
    found = localizer.localize(
        str(world.folder / "query.png"), Camera.of_matrix(world.K, (WIDTH, HEIGHT))
    )
    assert found is not None
    assert found.images == ("a.png",)


def test_what_is_no_model_is_told_in_a_line(world: World, tmp_path: Path) -> None:
    photos = str(world.folder / "photos")
    with pytest.raises(UsageError, match=r"E111 .*no model of COLMAP"):
        read_scene(str(tmp_path), photos)
    with pytest.raises(UsageError, match=r"E111 .*a.png: no such file"):
        read_scene(str(world.folder / "model"), str(tmp_path))
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"E201 images: .*the size that it has in the model"):
        read_scene(str(world.folder / "model"), str(tmp_path))


def test_a_query_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model=a", "images=b"]) == 2
    assert "E200 localize" in capsys.readouterr().err
