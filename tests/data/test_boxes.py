"""Pictures with boxes in VOC's and COCO's form: what is right is read, the rest told in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.detection import DetectionDataConfig, TrainingPictures, flipped
from data.real.boxes import AnnotatedImage, read_annotated, read_coco, read_voc, read_voc_file
from matcher.errors import ImageError, MatcherError, UsageError
from tests.helpers.annotated import LABELS, SMALL, shapes, voc_xml, write_coco, write_voc


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc") / "shapes")


def one(folder: Path, xml: str, picture: np.ndarray | None = None) -> AnnotatedImage:
    """What a folder of one picture with `xml` is read as."""
    (folder / "a.xml").write_text(xml)
    Image.fromarray(shapes(1)[0][0] if picture is None else picture).save(folder / "a.png")
    return read_voc_file(folder / "a.xml", folder, LABELS)


def test_voc_and_coco_say_the_same(voc: Path, tmp_path: Path) -> None:
    first = read_voc(voc, "train", LABELS)
    second = read_coco(write_coco(tmp_path), voc / "JPEGImages", LABELS)
    for (_, boxes), a, b in zip(shapes(), first, second, strict=True):
        assert a.path == b.path
        assert a.size == b.size == (96, 128)
        assert a.truth.boxes.tolist() == [list(map(float, box[:4])) for box in boxes]
        assert a.truth.boxes.tolist() == b.truth.boxes.tolist()
        assert a.truth.classes.tolist() == b.truth.classes.tolist() == [box[4] for box in boxes]
    assert [image.number for image in second] == list(range(10, 18))
    assert len(read_voc(voc, "", LABELS)) == 8


def test_names_in_a_list_keep_their_spaces_and_lose_the_column_of_a_class(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "shapes", count=3)
    names = "my shape", "room 1", "shape_2"
    for i, name in enumerate(names):
        for place, suffix in (("Annotations", ".xml"), ("JPEGImages", ".png")):
            (folder / place / f"shape_{i}{suffix}").rename(folder / place / f"{name}{suffix}")
    lists = {"plain": names, "of_a_class": ("my shape -1", "room 1  1", "shape_2  0 ")}
    for split, lines in lists.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(lines))
        assert [image.path.stem for image in read_voc(folder, split, LABELS)] == [*names]


def test_a_box_is_where_its_pixels_are(voc: Path) -> None:
    pixels, truth = read_annotated(read_voc(voc, "train", LABELS)[0])
    x0, y0, x1, y1 = truth.boxes[0].astype(int)
    inside = pixels[y0:y1, x0:x1].reshape(-1, 3)
    assert (inside == inside[0]).all()
    assert (pixels[y0 - 1 : y0, x0:x1] != inside[0]).any()


def test_a_picture_without_boxes_is_one_of_background(tmp_path: Path) -> None:
    _, truth = read_annotated(one(tmp_path, voc_xml([], (96, 128))))
    assert truth.boxes.shape == (0, 4)
    config = DetectionDataConfig(folder="x")
    image = one(tmp_path, "<annotation></annotation>")
    batch = TrainingPictures([image], SMALL, config, 0)[0, 0]
    assert (batch.boxes.shape, batch.images.shape) == ((0, 4), (1, 3, 96, 128))


def test_boxes_are_cut_at_the_picture_and_those_outside_left_out(tmp_path: Path) -> None:
    boxes = [(-20, 50, 30, 200, 0), (500, 10, 540, 30, 1), (20, 20, 40, 40, 1)]
    _, truth = read_annotated(one(tmp_path, voc_xml(boxes, (96, 128))))
    assert truth.boxes.tolist() == [[0, 50, 30, 96], [20, 20, 40, 40]]
    assert truth.classes.tolist() == [0, 1]


def test_boxes_without_an_area_are_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = one(tmp_path, voc_xml([(30, 30, 20, 40, 0), (5, 5, 9, 9, 1)], (96, 128)))
    assert image.truth.boxes.tolist() == [[5, 5, 9, 9]]
    assert "1 boxes without an area" in caplog.text


def test_what_is_difficult_or_a_crowd_is_not_learned(voc: Path, tmp_path: Path) -> None:
    xml = voc_xml([(5, 5, 30, 30, 0), (50, 50, 90, 90, 1)], (96, 128))
    image = one(tmp_path, xml.replace("<difficult>0", "<difficult>1", 1))
    assert image.truth.ignored.tolist() == [True, False]
    batch = TrainingPictures([image], SMALL, DetectionDataConfig(folder="x", flip="none"), 0)[0, 0]
    assert batch.boxes.tolist() == [[50, 50, 90, 90]]
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    assert read_coco(path, voc / "JPEGImages", LABELS)[0].truth.ignored[0]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (lambda x: x[..., 0], "gray"),
        (lambda x: np.dstack([x, np.full(x.shape[:2], 255, np.uint8)]), "alpha"),
        (lambda x: x[..., 0].astype(np.uint16) * 257, "16 bits"),
    ],
    ids=["gray", "alpha", "16 bits"],
)
def test_pictures_of_other_kinds_are_read_as_color(tmp_path: Path, kind: Any, shown: str) -> None:
    plain = shapes(1)[0][0]
    pixels, truth = read_annotated(
        one(tmp_path, voc_xml([(1, 2, 30, 40, 0)], (96, 128)), kind(plain))
    )
    assert (pixels.shape, pixels.dtype) == ((96, 128, 3), np.uint8)
    expected = plain if shown == "alpha" else np.repeat(plain[..., :1], 3, axis=2)
    # 16 bits are stretched as everywhere in the project: only the order of values is kept.
    if shown == "16 bits":
        assert np.corrcoef(pixels.ravel(), expected.ravel())[0, 1] > 0.99
    else:
        assert np.abs(pixels.astype(int) - expected).max() <= 1
    assert len(truth.boxes) == 1


BOX = voc_xml([(1, 2, 30, 40, 0)], (96, 128))


@pytest.mark.parametrize(
    ("xml", "told"),
    [
        ("", "is not VOC's XML"),
        (BOX[:-20], "is not VOC's XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>' + BOX, "declares types"),
        (BOX.replace("<xmin>2</xmin>", ""), "bndbox/xmin is None, not a number"),
        (BOX.replace("<ymax>40", "<ymax>nan"), "bndbox/ymax is 'nan', not a number"),
        (BOX.replace("<xmax>30", "<xmax>three"), "bndbox/xmax is 'three'"),
        (BOX.replace("red", "green"), "got 'green'; expected one of red, blue"),
    ],
)
def test_annotations_that_cannot_be_used_are_told_in_a_line(
    tmp_path: Path, xml: str, told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        one(tmp_path, xml)
    assert told in str(caught.value)
    assert "a.xml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_boxes_of_a_picture_of_another_size_are_refused(tmp_path: Path) -> None:
    image = one(tmp_path, voc_xml([(1, 2, 30, 40, 0)], (480, 640)))
    with pytest.raises(ImageError, match="128 x 96 pixels, its boxes are of 640 x 480"):
        read_annotated(image)


def test_a_name_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(BOX.replace("<size>", "<filename>../b.png</filename><size>"))
    with pytest.raises(UsageError, match=r"E114 \.\./b\.png"):
        read_voc_file(tmp_path / "a.xml", tmp_path, LABELS)


CHANGES: dict[str, dict[str, Any]] = {
    "three numbers": {"annotations": [{"image_id": 10, "category_id": 7, "bbox": [1, 2, 3]}]},
    "text": {"annotations": [{"image_id": 10, "category_id": 7, "bbox": ["a", 2, 3, 4]}]},
    "nan": {"annotations": [{"image_id": 10, "category_id": 7, "bbox": [np.nan, 2, 3, 4]}]},
    "no box": {"annotations": [{"image_id": 10, "category_id": 7}]},
    "unknown image": {"annotations": [{"image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4]}]},
    "unknown class": {"annotations": [{"image_id": 10, "category_id": 9, "bbox": [1, 2, 3, 4]}]},
    "other label": {"categories": [{"id": 7, "name": "cat"}, {"id": 6, "name": "dog"}]},
    "name that leads out": {"images": [{"id": 10, "file_name": "/etc/a"}], "annotations": []},
    "no images": {"images": [], "annotations": []},
    "no annotations": {"annotations": None},
    "no categories": {"categories": 3},
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_json_that_cannot_be_used_is_told_in_a_line(tmp_path: Path, how: str) -> None:
    path = write_coco(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **CHANGES[how]}))
    with pytest.raises(MatcherError) as caught:
        read_coco(path, tmp_path, LABELS)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert "instances.json" in str(caught.value) or how == "name that leads out"


def test_a_cut_json_and_missing_files_are_told(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UsageError, match="is not JSON"):
        read_coco(path, tmp_path, LABELS)
    with pytest.raises(UsageError, match="E111"):
        read_coco(tmp_path / "none.json", tmp_path, LABELS)
    with pytest.raises(UsageError, match="E111"):
        read_voc(tmp_path, "train", LABELS)


def test_empty_annotations_of_coco_are_pictures_of_background(voc: Path, tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    images = read_coco(path, voc / "JPEGImages", LABELS)
    assert [len(image.truth.boxes) for image in images] == [0] * 8


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_boxes_show_the_same(voc: Path, axis: int) -> None:
    pixels, truth = read_annotated(read_voc(voc, "train", LABELS)[1])
    turned, moved = flipped(pixels, truth, axis)
    for before, after in zip(truth.boxes.astype(int), moved.boxes.astype(int), strict=True):
        a = pixels[before[1] : before[3], before[0] : before[2]]
        b = turned[after[1] : after[3], after[0] : after[2]]
        assert np.array_equal(np.flip(a, axis), b)


def test_training_pictures_depend_on_seed_epoch_and_index_alone(voc: Path) -> None:
    config = DetectionDataConfig(folder=str(voc), flip="both", scales=(0.7, 1.4))
    pictures = TrainingPictures(read_voc(voc, "train", LABELS), SMALL, config, 3)
    first, again, other = pictures[0, 2], pictures[0, 2], pictures[1, 2]
    assert first.images.equal(again.images)
    assert first.images.shape != other.images.shape
    height, width = first.images.shape[-2:]
    assert (first.boxes[:, 2] <= width + 1e-3).all()
    assert (first.boxes[:, 3] <= height + 1e-3).all()
