"""Predictions are kept only while all that decides them is the same."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from eval import predictions
from eval.benchmarks.folder import Benchmark, content_of, read_pairs_with_gt
from eval.benchmarks.rendered import _listed, _once
from eval.benchmarks.sizing import Sizing
from eval.methods import MethodOptions, build_method
from eval.methods.base import unchanged
from eval.names import file_label
from eval.options import split_names
from eval.predictions import Job, predict, prepare, read_predictions
from matcher.errors import CheckpointError, Code, MemoryLimitError, StorageError, UsageError
from matcher.network.model import build_matcher
from matcher.network.quality import QualityHead
from matcher.structures import Matches
from matcher.training.export import export_weights
from matcher.weights.checkpoint import quality_path, save_quality
from tests.helpers.eval_folders import pairs_folder
from tests.helpers.models import COMPACT_TINY


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


def test_times_of_another_machine_are_not_those_of_this_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Counting()
    evaluated(folder, tmp_path, method)
    monkeypatch.setattr("os.cpu_count", lambda: 1234)
    evaluated(folder, tmp_path, method)
    assert method.calls == 4


def test_an_image_that_is_replaced_while_it_is_read_is_no_prediction_of_either(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, read = folder / "images" / "pair000_0.ppm", predictions.read_rgb
    before = image.read_bytes()

    def replacing(path: Path) -> np.ndarray:
        if path == image:
            write(image, 88)
        pixels = read(path)
        if path == image:
            image.write_bytes(before[:-1] + b"!")
        return pixels

    monkeypatch.setattr(predictions, "read_rgb", replacing)
    job = evaluated(folder, tmp_path, Counting())
    with pytest.raises(StorageError, match=r"E402 .*000000.*changed meanwhile; run again"):
        read_predictions(job)


def test_weights_that_are_replaced_while_they_are_read_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(b"of step 1")
    with pytest.raises(CheckpointError, match=r"E503 .*best.safetensors: was replaced"):
        with unchanged(weights):
            weights.write_bytes(b"of step 2")
    with pytest.raises(CheckpointError, match=r"E501 .*cannot be read"), unchanged(tmp_path):
        pass


def test_all_options_and_a_quality_head_that_came_later_decide_predictions(tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    export_weights(build_matcher(COMPACT_TINY), weights, 0)
    options = MethodOptions(device="cpu")
    before, again = (build_method(str(weights), options).settings for _ in range(2))
    others = {"device", "offline", "keypoints", "ratio", "xfeat", "aliked"}
    assert {field.name for field in fields(MethodOptions)} - before.keys() == others
    save_quality(QualityHead(), quality_path(weights), weights)
    assert before == again
    assert before != build_method(str(weights), options).settings


def test_a_path_keeps_its_commas_where_there_is_such_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a,b , c" / "best.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert split_names(f"{path}") == (str(path),)
    assert split_names(f"compact, {path},orb,compact") == ("compact", str(path), "orb")
    path.unlink()
    assert len(split_names(f"compact,{path}")) == 4


def test_a_worker_refuses_weights_of_which_the_evaluation_did_not_begin(
    folder: Path, tmp_path: Path
) -> None:
    first, later = Counting(), Counting()
    later.settings = {"method": "counting", "weights_sha256": "another"}
    pair = evaluated(folder, tmp_path, first).pairs[0]
    with pytest.raises(UsageError, match="E206 counting: its files were changed"):
        predictions._predict_in_worker(pair, build=lambda: later, settings=first.settings)
    assert later.calls == 0


@pytest.mark.parametrize(
    "damage", [b"", b"\x89HDF\r\n\x1a\n", b"no file of ours" * 99, "half", "flipped", "folder"]
)
def test_a_damaged_prediction_is_none(folder: Path, tmp_path: Path, damage: bytes | str) -> None:
    method = Counting()
    path = evaluated(folder, tmp_path, method).pairs[1].path
    whole = bytearray(path.read_bytes())
    if damage == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        path.write_bytes(bytes(b ^ 255 for b in whole))
    elif damage == "folder":
        path.unlink()
        (path / "inside").mkdir(parents=True)
        with pytest.raises(StorageError, match=r"E401 .*000001"):
            evaluated(folder, tmp_path, method)
        return
    elif isinstance(damage, bytes):
        path.write_bytes(damage)
    assert len(read_predictions(evaluated(folder, tmp_path, method))) == 2
    assert method.calls == 3


@pytest.mark.parametrize("damage", ["emptied", "missing", "added", "unsealed"])
def test_rendered_data_that_is_damaged_is_rendered_again(tmp_path: Path, damage: str) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "images").mkdir()
        (folder / "images" / "a.png").write_bytes(b"pixels")

    image = _once(tmp_path, "warps", "3 pairs", make) / "images" / "a.png"
    assert _once(tmp_path, "warps", "3 pairs", make) == image.parents[1]
    assert len(made) == 1
    if damage == "emptied":
        image.write_bytes(b"")
    elif damage == "missing":
        image.unlink()
    elif damage == "added":
        (image.parent / "b.png").write_bytes(b"x")
    else:
        (image.parents[1] / "contents.sha256").unlink()
    _once(tmp_path, "warps", "3 pairs", make)
    assert len(made) == 2
    assert image.read_bytes() == b"pixels"
    assert [path.name for path in tmp_path.iterdir()] == [image.parents[1].name]


@pytest.mark.parametrize("name", ["x" * 400, "\u4e2d" * 90, "a/b.safetensors", "a#b%20?", "\udcff"])
def test_labels_fit_into_a_file_name_and_tell_names_apart(tmp_path: Path, name: str) -> None:
    label = file_label(name)
    assert len(label.encode()) <= 120
    assert not set(label) & set("/#%?.")
    (tmp_path / f"timing-{label}-precision-recall.png").touch()
    assert label != file_label(name + "y") != file_label(label)
    assert file_label("few0-root_sift") == "few0-root_sift"
