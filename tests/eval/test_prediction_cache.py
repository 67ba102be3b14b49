"""Predictions are kept only while all that decides them is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval import predictions
from eval.benchmarks.folder import Benchmark, content_of, read_pairs_with_gt
from eval.benchmarks.rendered import _listed
from eval.benchmarks.sizing import Sizing
from eval.methods import MethodOptions, build_method
from eval.predictions import Job, predict, prepare, read_predictions
from matcher.errors import Code, MemoryLimitError
from matcher.structures import Matches
from tests.helpers.eval_folders import pairs_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of uncompressed images, all of the same size in bytes."""
    root = pairs_folder(tmp_path_factory.mktemp("kept"), 2)
    table = root / "pairs_with_gt.txt"
    table.write_text(table.read_text().replace(".png", ".ppm"))
    for i, name in enumerate(sorted(path.stem for path in (root / "images").iterdir())):
        write(root / "images" / f"{name}.ppm", i)
    return root


def write(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
    path.write_bytes(b"P6 64 48 255\n" + pixels.tobytes())


class Counting:
    """A method that counts its calls and can be told to fail."""

    name, device, weights_sha256 = "counting", "cpu", None

    def __init__(self) -> None:
        self.settings: dict[str, str] = {"method": "counting"}
        self.calls = 0
        self.fails = False

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        self.calls += 1
        if self.fails:
            raise MemoryLimitError(Code.OUT_OF_MEMORY, "cpu", "out of memory")
        return Matches.empty()


def evaluated(root: Path, output: Path, method: Counting) -> Job:
    benchmark = Benchmark("pairs", "pairs", read_pairs_with_gt(root), Sizing())
    how = {"threads": 1, "overwrite": False}
    job = prepare(output, benchmark, method, MethodOptions(), **how)
    predict(job, method, method.name, workers=1)
    return job


def test_an_image_of_other_content_and_the_same_size_is_matched_again(
    folder: Path, tmp_path: Path
) -> None:
    method = Counting()
    evaluated(folder, tmp_path, method)
    evaluated(folder, tmp_path, method)
    assert method.calls == 2
    image = folder / "images" / "pair001_1.ppm"
    size = image.stat().st_size
    write(image, 77)
    assert image.stat().st_size == size
    evaluated(folder, tmp_path, method)
    assert method.calls == 3, "the other pair is as it was"


def test_a_failure_is_tried_again(folder: Path, tmp_path: Path) -> None:
    method = Counting()
    method.fails = True
    failed = read_predictions(evaluated(folder, tmp_path, method))
    assert all("E131" in prediction.failure for prediction in failed)
    method.fails = False
    answered = read_predictions(evaluated(folder, tmp_path, method))
    assert [prediction.failure for prediction in answered] == ["", ""]


def test_other_code_or_libraries_mean_other_predictions(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Counting()
    source = tmp_path / "reading.py"
    source.write_text("1")
    monkeypatch.setattr(predictions, "READING", (source,))
    evaluated(folder, tmp_path / "out", method)
    source.write_text("2")
    evaluated(folder, tmp_path / "out", method)
    assert method.calls == 4
    monkeypatch.setattr("cv2.__version__", "another")
    evaluated(folder, tmp_path / "out", method)
    assert method.calls == 6


def test_a_function_of_the_user_depends_on_the_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_of_test.py").write_text("def match(a, b): ...\n")
    (tmp_path / "beside.py").write_text("ratio = 1\n")
    before = build_method("mine_of_test:match", MethodOptions()).settings
    (tmp_path / "beside.py").write_text("ratio = 2\n")
    assert build_method("mine_of_test:match", MethodOptions()).settings != before


def test_a_file_without_its_notes_is_no_prediction(folder: Path, tmp_path: Path) -> None:
    from matcher.results.record import ImageRecord, MatchRecord, write_matches

    method = Counting()
    job = evaluated(folder, tmp_path, method)
    image = ImageRecord("a", 64, 48)
    write_matches(job.pairs[0].path, MatchRecord(Matches.empty(), image, image))
    evaluated(folder, tmp_path, method)
    assert method.calls == 3


def test_photographs_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"one")
    before = _listed([photo])
    photo.write_bytes(b"two")
    assert _listed([photo]) != before
    assert content_of(tmp_path / "none.jpg") == ""
