"""The commands of the pages about cameras, other programs and other packages run, and write what
they name."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from matcher.images.exif import FILM_DIAGONAL
from matcher.program import command

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"cameras.md": 9, "where_matches_go.md": 8, "coming_from.md": 7}
"""Of the commands of ours on each page."""
WIDTH, HEIGHT, FOCAL = 160, 128, 200.0
FOCAL_ON_FILM = FOCAL / np.hypot(WIDTH, HEIGHT) * FILM_DIAGONAL
PARAMS = f"{FOCAL},{FOCAL},{(WIDTH - 1) / 2},{(HEIGHT - 1) / 2}"
WRITTEN = {
    "hloc": "features.h5", "colmap": "colmap/database.db", "colmap_text": "colmap_text/matches.txt",
    "gdal": "gdal", "hugin": "panorama.pto",
}  # fmt: skip
"""By `export`, in the folder of the run."""


def text(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """In blocks of code, and in tables of lines beside each other."""
    found = re.findall(r"^quadmatch (.*)$|\| `quadmatch ([^`]*)` \|", text(page), re.MULTILINE)
    return ["".join(pair) for pair in found]


def view(x: int, y: int) -> Image.Image:
    """A cut of a photograph, as of a camera that moves along a wall."""
    photo = Image.open(ROOT / "assets" / "demo0.jpg").convert("L").resize((320, 240))
    return photo.crop((x, y, x + WIDTH, y + HEIGHT))


def write_model(folder: Path) -> None:
    """A model of ``photos/0.png``, whose points lie on a wall at a distance of 1, and ``a.jpg``."""
    x, y = (axis.ravel() for axis in np.meshgrid(range(8, 152, 6), range(8, 120, 6)))
    model = pycolmap.Reconstruction()
    params = [FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]
    camera = pycolmap.Camera(
        camera_id=1, model="PINHOLE", width=WIDTH, height=HEIGHT, params=params
    )
    model.add_camera_with_trivial_rig(camera)
    keypoints = np.stack([x, y], axis=1) + 0.5
    image = pycolmap.Image(name="0.png", keypoints=keypoints, camera_id=1, image_id=1)
    model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    other = pycolmap.Image(name="a.jpg", camera_id=1, image_id=2)
    model.add_image_with_trivial_frame(other, pycolmap.Rigid3d())
    for number, (u, v) in enumerate(keypoints):
        track = pycolmap.Track()
        track.add_element(1, number)
        point = [(u - WIDTH / 2) / FOCAL, (v - HEIGHT / 2) / FOCAL, 1]
        model.add_point3D(np.array(point), track)
    folder.mkdir(parents=True)
    model.write(folder)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the pages name."""
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = round(FOCAL_ON_FILM)
    for name in ("photos", "queries", "scenes", "references", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        view(16 * number, 8 * number).save(tmp_path / "photos" / f"{number}.png")
    Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "masks" / "0.png")
    for name in ("a.jpg", "reference.tif", "references/a.png"):
        view(0, 0).save(tmp_path / name)
    for name in ("b.jpg", "scene.tif", "scenes/b.png", "query.jpg", "queries/b.png"):
        view(24, 16).save(tmp_path / name, exif=exif)
    for name in ("cameras.csv", "queries.csv"):
        (tmp_path / name).write_text(f"*,{PARAMS}\n")
    (tmp_path / "pairs.txt").write_text("0.png 1.png\n1.png 2.png\n")
    write_model(tmp_path / "sparse" / "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", COUNTS)
def test_all_commands_of_a_page_are_seen(page: str) -> None:
    assert len(commands(page)) == COUNTS[page]


@pytest.mark.parametrize("line", [line for page in COUNTS for line in commands(page)])
def test_a_command_writes_what_it_names(
    line: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line, comments=True)
    assert command.main([*words, "offline=true"]) == 0
    told = {"localize": "located   1 of 1", "pairs": " ok", "export": " ok"}
    assert told.get(words[0], "verdict") in capsys.readouterr().out
    target = next((word.removeprefix("output=") for word in words if "output=" in word), None)
    if target is None:
        return
    export = next((kind for kind in WRITTEN if f"export={kind}" in words), None)
    export = "colmap" if words[:2] == ["export", "colmap"] else export
    written = world / target / WRITTEN[export] if export else world / target
    assert written.stat().st_size > 0
    if export == "hloc":
        with h5py.File(written) as features, h5py.File(world / target / "matches.h5") as matches:
            assert 1 < len(features) <= 3
            assert set(features) <= {"0.png", "1.png", "2.png"}
            assert len(matches) > 0


def test_the_lines_of_python_about_localization_find_the_photograph(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"(?<!<!-- run -->\n)```python\n(.*?)```", text("cameras.md"), re.DOTALL)
    (world / "snippet.py").write_text(code)
    location = runpy.run_path("snippet.py")["location"]
    assert location.inliers > 100
    assert capsys.readouterr().out
