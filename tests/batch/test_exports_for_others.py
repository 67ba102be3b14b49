"""Control points for GDAL, a project for Hugin, text for COLMAP and verdicts of a collection."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from matcher.batch.export.colmap_text import export_colmap_text
from matcher.batch.export.control_points import POINTS, export_gdal, export_hugin
from matcher.batch.export.verdicts import export_verdicts
from matcher.batch.image_names import Root
from matcher.batch.run import Run
from matcher.errors import UsageError
from tests.helpers.collections_of_pairs import run_of
from tests.helpers.warped import moved

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SHIFT = np.array([[1, 0, 3.37], [0, 1, -2.41], [0, 0, 1.0]])
PLACE = Affine(2.0, 0, 1000, 0, -2.0, 5000)
NAMES = "a.tif", "b.tif", "c.tif"


def rows(matrix: np.ndarray, right: int = 150, wrong: int = 0) -> list[tuple[float, ...]]:
    """x0, y0, x1, y1, score: first those that are wrong, which have the best scores."""
    rng = np.random.default_rng(5)
    points0 = rng.uniform(0, [199, 149], (right + wrong, 2))
    points1 = moved(matrix, points0)
    points1[:wrong] = rng.uniform(0, [199, 149], (wrong, 2))
    scores = np.linspace(1, 0.5, right + wrong)[:, None]
    return [tuple(row) for row in np.hstack([points0, points1, scores]).tolist()]


def finished(folder: Path) -> tuple[Run, Root]:
    """a to b with a third wrong, b to c without a geometry; only image a has a place."""
    for name in NAMES:
        Image.new("L", (200, 150)).save(folder / name)
    with rasterio.open(folder / "a.tif", "r+") as file:
        file.transform, file.crs = PLACE, "EPSG:3763"
    results = {
        ("a.tif", "b.tif"): rows(SHIFT, 150, 75),
        ("b.tif", "a.tif"): [],
        ("b.tif", "c.tif"): rows(SHIFT, 0, 100),
    }
    return run_of(folder / "run", results), Root(str(folder))


def test_gdal_gets_the_control_points_of_pairs_that_agree(tmp_path: Path) -> None:
    run, root = finished(tmp_path)
    (written,) = export_gdal(run, root)
    assert written == tmp_path / "run" / "gdal" / "000001-b.vrt"
    assert written.with_suffix(".points").is_file()
    with rasterio.open(written) as file:
        gcps, crs = file.gcps
    assert crs == "EPSG:3763"
    assert 150 <= len(gcps) <= 160
    world = np.array([(p.x, p.y) for p in gcps])
    pixels0 = np.array([~PLACE @ tuple(point) for point in world]) - 0.5
    pixels1 = np.array([(p.col, p.row) for p in gcps]) - 0.5
    assert np.median(np.abs(moved(SHIFT, pixels0) - pixels1)) < 1e-3


@pytest.mark.parametrize("camera", [None, (300.0, 300.0, 99.5, 74.5)])
def test_hugin_gets_all_images_and_the_best_points_that_agree(tmp_path: Path, camera) -> None:
    run, root = finished(tmp_path)
    text = export_hugin(run, root, camera).read_text()
    assert re.findall(r'^i w200 h150 .* n"(.*)"$', text, re.M) == [
        str(tmp_path / name) for name in NAMES
    ]
    points = np.array(re.findall(r"^c n0 N1 x(\S+) y(\S+) X(\S+) Y(\S+) t0$", text, re.M), float)
    assert text.count("\nc ") == len(points) == POINTS
    assert np.median(np.abs(moved(SHIFT, points[:, :2]) - points[:, 2:])) < 1e-3
    view = np.degrees(2 * np.arctan(100 / 300)) if camera else 50.0
    assert float(re.findall(r"^i .* v(\S+)", text, re.M)[0]) == pytest.approx(view)


def colmap_features(path: Path) -> np.ndarray:
    """(K, 132) as COLMAP's importer reads them: x, y, scale, orientation, 128 values."""
    (count, width), *lines = [line.split() for line in path.read_text().splitlines()]
    assert (int(count), int(width)) == (len(lines), 128)
    return np.array(lines, float).reshape(-1, 132)


def test_colmap_gets_points_from_the_corner_and_their_numbers(tmp_path: Path) -> None:
    results = {
        ("x/a.jpg", "b.jpg"): [(8, 8, 20.25, 10, 0.9), (16, 8, 30, 10, 0.5)],
        ("b.jpg", "c.jpg"): [(30, 10, 5, 5, 0.3)],
        ("x/a.jpg", "c.jpg"): [],
    }
    matches = export_colmap_text(run_of(tmp_path / "run", results), 1.0)
    features = {
        name: colmap_features(matches.parent / "features" / f"{name}.txt")[:, :2]
        for name in ("x/a.jpg", "b.jpg", "c.jpg")
    }
    pairs = [block.splitlines() for block in matches.read_text().strip().split("\n\n")]
    assert [block[0] for block in pairs] == ["x/a.jpg b.jpg", "b.jpg c.jpg"]
    for names, *index in pairs:
        name0, name1 = names.split(" ")
        i, j = np.array([line.split() for line in index], int).T
        found = np.hstack([features[name0][i], features[name1][j]])
        expected = np.array(results[name0, name1])[:, :4] + 0.5
        assert sorted(found.tolist()) == expected.tolist()


@pytest.mark.parametrize("name", ["a b.jpg", "../a.jpg", "a\n.jpg"])
def test_names_that_colmaps_text_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="E209"):
        export_colmap_text(run_of(tmp_path / "run", {(name, "b.jpg"): []}), 1.0)


def test_a_table_tells_which_pairs_to_trust(tmp_path: Path) -> None:
    run, _ = finished(tmp_path)
    written = export_verdicts(run)
    assert (written.reliable, written.pairs) == (1, 2)
    with open(written.path, newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["image0"], row["image1"], row["status"]) for row in table] == [
        ("a.tif", "b.tif", "ok"), ("b.tif", "a.tif", "no_match"), ("b.tif", "c.tif", "ok"),
    ]  # fmt: skip
    assert [row["verdict"] for row in table] == ["reliable", "too few to tell", "too few to tell"]
    assert [int(row["matches"]) for row in table] == [225, 0, 100]
    assert table[0]["translation_unknown"] == "True"
    assert int(table[0]["inliers"]) >= 150


@pytest.mark.parametrize("export", ["gdal", "hugin", "verdicts"])
def test_the_program_exports(program, tmp_path: Path, export: str) -> None:
    code, out, _ = program("pairs=img", "output=run", f"export={export}", "refine=none")
    assert code == 0
    assert f"\n{export} " in out


def test_the_program_refuses_names_for_colmaps_text_at_the_start(program) -> None:
    code, _, err = program("pairs=img", "output=run", "export=colmap_text")
    assert code == 2
    assert err.startswith("E209 'im 0.png'")
