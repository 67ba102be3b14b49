"""Classification: preprocessing, the program, and its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.real.image_folder import CenterImages, center_batches, find_images
from eval.classification import ClassificationEvalOptions, columns_of, ranks, score
from eval.classification import evaluate as evaluate_folder
from eval.metrics import wilson_interval
from matcher.errors import ImageError, UsageError
from matcher.images.imagenet import to_input
from matcher.network.pyramid import Pyramid
from matcher.tasks.classification.__main__ import main
from matcher.tasks.classification.predictor import Classifier
from matcher.tasks.classification.preprocess import center_square
from tests.helpers.image_classes import COLORS, train_classifier, write_classes
from tests.helpers.pyramids import GOLDEN, SMALL

LABELS = tuple(COLORS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that has seen such a folder for a minute of its time."""
    folder = tmp_path_factory.mktemp("trained")
    train_classifier(folder, "trainer.max_steps=40")
    return folder / "run" / "weights.safetensors"


def test_preprocessing_is_pillows_bicubic_of_the_shorter_side_and_the_center() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (301, 517, 3), np.uint8)
    shrunk = Image.fromarray(pixels).resize((256 * 517 // 301, 256), Image.Resampling.BICUBIC)
    left, top = round((shrunk.width - 224) / 2), 16
    expected = np.asarray(shrunk)[top : top + 224, left : left + 224]
    assert np.array_equal(center_square(pixels), expected)
    x = to_input(expected[None])
    assert x.shape == (1, 3, 224, 224)
    red = (expected[0, 0, 0] / 255 - 0.485) / 0.229
    assert float(x[0, 0, 0, 0]) == pytest.approx(red, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (224, 224), (500, 40)])
def test_images_of_any_shape_give_a_square(size: tuple[int, int]) -> None:
    assert center_square(np.zeros((*size, 3), np.uint8), 64).shape == (64, 64, 3)


def test_an_image_is_told_in_lines(
    folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in COLORS:
        words = [str(folder / name / "1.png"), f"weights={weights}", "device=cpu"]
        assert main([*words, "top=2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert lines[0].endswith(f"  {name}")


def test_the_result_is_frozen_and_its_scores_fall(folder: Path, weights: Path) -> None:
    found = Classifier(weights, device="cpu").classify(folder / "red" / "gray.png")
    assert sorted(found.labels) == sorted(LABELS)
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert sum(found.scores) == pytest.approx(1.0, abs=1e-5)
    assert [LABELS[i] for i in found.indices] == list(found.labels)
    with pytest.raises(AttributeError):
        found.scores = ()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "E203 weights: no weights are bundled; give weights=FILE"),
        (["weights=none.safetensors"], 2, "E111 none.safetensors"),
        (["weight=x", "weights=y"], 2, "E202 weight: unknown option; did you mean 'weights'?"),
        (["b.png", "weights=x"], 2, "E200 images: got 2 images, not 1"),
        (["weights=B"], 2, "does not tell its model; give model=quadtree_b0"),
        (["weights=B", "model=quadtree_b7"], 2, "E201 model: got 'quadtree_b7'"),
        (["weights=B", "model=quadtree_b0"], 5, "E502 "),
        (["weights=W", "model=quadtree_b0"], 2, "E201 model: got 'quadtree_b0'; expected none"),
        (["weights=W", "labels=none.txt"], 2, "E111 none.txt"),
        (["weights=W", "labels=L"], 2, "E201 labels: got 1; expected 3 names"),
        (["weights=W", "labels=E"], 2, "holds no name"),
        (["weights=W", "top=0"], 2, "E201 top: got 0"),
    ],
)
def test_what_cannot_work_is_one_line(
    folder: Path,
    weights: Path,
    words: list[str],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "names.txt").write_text("only one\n")
    (folder / "empty.txt").write_text("\n")
    known = {"=B": f"={GOLDEN / 'cls_b_small.pth'}", "=W": f"={weights}",
             "=L": f"={folder / 'names.txt'}", "=E": f"={folder / 'empty.txt'}"}  # fmt: skip
    for short, path in known.items():
        words = [w.replace(short, path) if w.endswith(short) else w for w in words]
    assert main([str(folder / "red" / "0.png"), *words]) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_missing_image_is_told(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.png", f"weights={weights}"]) == 2
    assert "E111 nowhere.png" in capsys.readouterr().err


def test_folders_are_classes_and_gray_images_count(folder: Path) -> None:
    found = find_images(folder)
    assert found.labels == LABELS
    assert len(found.files) == 13
    assert [p.parent.name for p in found.files] == [LABELS[i] for i in found.classes]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"E111 .*no folders with images"):
        find_images(tmp_path)
    with pytest.raises(UsageError, match=r"E111 .*no such folder"):
        find_images(tmp_path / "nowhere")


def test_weights_are_measured_on_a_folder(folder: Path, weights: Path) -> None:
    options = ClassificationEvalOptions(folder=str(folder), weights=str(weights), batch=5)
    found = evaluate_folder(options)
    assert found.images == 13
    assert found.top1 >= 12 / 13
    assert found.top5 == 1.0
    assert found.top1_interval[0] < found.top1 <= found.top1_interval[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_whoever_reads_it(
    tmp_path: Path, workers: int
) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red" / "a.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"E101 .*a\.png"):
        list(center_batches(CenterImages(find_images(tmp_path), 16), workers=workers))


def test_images_are_of_all_kinds_that_are_read_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("red/a.tif", "red/b.JPG", "red/._b.jpg", "red/notes.txt", ".cache/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(tmp_path)
    assert (found.labels, [path.name for path in found.files]) == (("red",), ["a.tif", "b.JPG"])


def test_ranks_count_the_classes_before_the_right_one(folder: Path) -> None:
    images = find_images(folder)

    class Fixed(Pyramid):
        def forward(self, image: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return torch.tensor([[0.1, 0.5, 0.2, 0.3]]).expand(len(image), -1)

    model = Fixed(SMALL)
    found = ranks(model, center_batches(CenterImages(images, 16)), [0, 1, 3])
    assert found.tolist() == [3] * 4 + [0] * 4 + [1] * 5
    figures = score(found)
    assert (figures.top1, figures.top5) == (4 / 13, 1.0)
    assert str(figures).startswith("13 images: top-1 30.8% (12.7% to 57.6%), top-5 100.0%")


def test_labels_and_folders_are_paired_by_name(folder: Path) -> None:
    images = find_images(folder)
    assert columns_of(images, ("red", "blue", "x", "green"), 4) == [1, 3, 0]
    assert columns_of(images, (), 3) == [0, 1, 2]
    with pytest.raises(UsageError, match="no class 'green' in the weights"):
        columns_of(images, ("red", "blue"), 2)
    with pytest.raises(UsageError, match="E201 folder: got '3 folders'; expected 4, one a class"):
        columns_of(images, (), 4)


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    """8 of 10: 0.490 to 0.943 (Newcombe, 1998, gives such tables)."""
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(0, 20)
    assert low == 0.0
    assert high == pytest.approx(0.1611, abs=1e-4)
