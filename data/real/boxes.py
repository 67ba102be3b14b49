"""Pictures with boxes: Pascal VOC's XML and COCO's JSON."""

from __future__ import annotations

import json
import logging
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from data.real.readers import numbered_lines
from matcher.errors import Code, ImageError, UsageError, missing
from matcher.files import read_text
from matcher.images.load import read_rgb
from matcher.images.suffixes import SUFFIXES
from matcher.validation.checked import invalid

logger = logging.getLogger(__name__)

SECOND_COLUMN = re.compile(r"\s+(-1|0|1)$")
"""Whether a picture shows the class of its list."""
LEAST_SIDE = 1.0
"""Pixels that a box has to have in its picture, or it is left out."""


class TrueBoxes(NamedTuple):
    """What is in a picture."""

    boxes: np.ndarray
    """(N, 4) float32 x0, y0, x1, y1 in pixels as stored, corner origin"""
    classes: np.ndarray
    """(N,) int64"""
    ignored: np.ndarray
    """(N,) bool: crowds and what is marked as difficult, which are neither learned nor counted"""

    def where(self, kept: np.ndarray) -> TrueBoxes:
        """Those that a (N,) bool mask keeps."""
        return TrueBoxes(*(values[kept] for values in self))

    def within(self, size: tuple[int, int]) -> TrueBoxes:
        """Those with something to see in a picture of (height, width), cut at its sides."""
        limits = np.array([size[1], size[0]] * 2, np.float32)
        boxes = self.boxes.clip(0, limits)
        seen = np.asarray(np.all(boxes[:, 2:] - boxes[:, :2] >= LEAST_SIDE, axis=1))
        return self._replace(boxes=boxes).where(seen)


class AnnotatedImage(NamedTuple):
    """A picture and what is in it."""

    path: Path
    truth: TrueBoxes
    size: tuple[int, int] | None = None
    """(height, width) that the boxes were drawn on; None: not told"""
    number: int = 0
    """Of the picture in COCO's file"""


def read_annotated(image: AnnotatedImage) -> tuple[np.ndarray, TrueBoxes]:
    """(H, W, 3) uint8 pixels as stored, and the boxes that can be seen in them.

    Raises:
        UsageError, ImageError: as `read_rgb`; the boxes are of another size of picture (E105).
    """
    pixels = read_rgb(image.path)
    size = (pixels.shape[0], pixels.shape[1])
    if image.size is not None and image.size != size:
        what = f"{size[1]} x {size[0]} pixels, its boxes are of {image.size[1]} x {image.size[0]}"
        raise ImageError(Code.UNSUPPORTED_IMAGE, image.path, what, "annotate it anew")
    return pixels, image.truth.within(size)


def read_voc(folder: Path | str, split: str, labels: Sequence[str]) -> list[AnnotatedImage]:
    """Pictures of a folder of ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``.

    Args:
        folder: as VOC2007 and VOC2012 are unpacked.
        split: name of a list in ``ImageSets/Main``; empty: all of ``Annotations``.
        labels: names of the classes.

    Raises:
        UsageError: no such file (E111), a list that is no text (E112), or as `read_voc_file`.
    """
    folder = Path(folder)
    if not (folder / "Annotations").is_dir():
        raise missing(folder, "no such folder of Annotations", "give a folder in the form of VOC")
    if split:
        lines = numbered_lines(folder / "ImageSets" / "Main" / f"{split}.txt")
        names = [_listed(folder / "Annotations", line.strip()) for _, line in lines]
    else:
        names = sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))
    files = [_inside(folder / "Annotations", f"{name}.xml") for name in names]
    return _some([read_voc_file(path, folder / "JPEGImages", labels) for path in files], folder)


def read_voc_file(path: Path, images: Path, labels: Sequence[str]) -> AnnotatedImage:
    """What one XML file says of a picture in the folder `images`.

    VOC counts pixels from 1 and names the first and the last one of a box.

    Raises:
        UsageError: no such file (E111), not XML or a value that is missing or no number (E112), a
            class that is none of `labels` (E201), or a name that leads elsewhere (E114).
    """
    root = _parsed(path)
    boxes, classes, ignored = [], [], []
    for item in root.iter("object"):
        x0, y0, x1, y1 = (
            _number(path, item, f"bndbox/{n}") for n in ("xmin", "ymin", "xmax", "ymax")
        )
        boxes.append((x0 - 1, y0 - 1, x1, y1))
        classes.append(class_number(path, (item.findtext("name") or "").strip(), labels))
        ignored.append((item.findtext("difficult") or "0").strip() == "1")
    height, width = (int(_number(path, root, f"size/{n}", 0)) for n in ("height", "width"))
    return AnnotatedImage(
        _picture(images, path.stem, root.findtext("filename")),
        true_boxes(path, boxes, classes, ignored),
        (height, width) if min(height, width) > 0 else None,
    )


def read_coco(path: Path | str, images: Path | str, labels: Sequence[str]) -> list[AnnotatedImage]:
    """Pictures of COCO's JSON of instances; those without a box are there too.

    Args:
        path: the file.
        images: folder of the pictures.
        labels: names of the classes, in the order of the network.

    Raises:
        UsageError: no such file (E111), not COCO's JSON or an entry that cannot be used (E112), a
            class that is none of `labels` (E201), or a name that leads elsewhere (E114).
    """
    path = Path(path)
    content = _json(path)
    try:
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        of_image: dict[Any, list[dict[str, Any]]] = {entry["id"]: [] for entry in content["images"]}
        for entry in content["annotations"]:
            of_image[entry["image_id"]].append(entry)
        return _some(
            [
                _coco_image(path, Path(images), entry, of_image[entry["id"]], names, labels)
                for entry in content["images"]
            ],
            path,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"is not COCO's JSON of instances ({type(error).__name__}: {error})"
        raise UsageError(Code.UNREADABLE_LIST, path, what) from error


def class_number(path: Path, name: str, labels: Sequence[str]) -> int:
    """The number of a class from its name."""
    if name not in labels:
        raise invalid(f"model.labels, {path}", name, f"one of {', '.join(labels[:20])}")
    return labels.index(name)


def true_boxes(
    path: Path, boxes: Sequence[Sequence[float]], classes: list[int], ignored: list[bool]
) -> TrueBoxes:
    """Boxes as arrays; those without an area are left out, with a warning."""
    truth = TrueBoxes(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int64),
        np.array(ignored, bool),
    )
    usable = np.asarray(np.all(truth.boxes[:, 2:] > truth.boxes[:, :2], axis=1))
    if not usable.all():
        logger.warning("%s: %d boxes without an area are left out", path, (~usable).sum())
    return truth.where(usable)


def _coco_image(
    path: Path,
    images: Path,
    entry: dict[str, Any],
    annotations: list[dict[str, Any]],
    names: dict[Any, str],
    labels: Sequence[str],
) -> AnnotatedImage:
    boxes, classes, ignored = [], [], []
    for annotation in annotations:
        x, y, width, height = (float(value) for value in annotation["bbox"])
        if not all(map(math.isfinite, (x, y, width, height))):
            raise ValueError(f"a box {annotation['bbox']}")
        boxes.append((x, y, x + width, y + height))
        classes.append(class_number(path, names[annotation["category_id"]], labels))
        ignored.append(bool(annotation.get("iscrowd", 0)))
    size = (int(entry.get("height", 0)), int(entry.get("width", 0)))
    return AnnotatedImage(
        _inside(images, str(entry["file_name"])),
        true_boxes(path, boxes, classes, ignored),
        size if min(size) > 0 else None,
        int(entry["id"]),
    )


def _parsed(path: Path) -> ET.Element:
    text = read_text(path, "file of annotations")
    try:
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise ValueError("it declares types or entities")
        return ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        what = f"is not VOC's XML ({error})"
        raise UsageError(Code.UNREADABLE_LIST, path, what, "write it anew") from error


def _number(path: Path, item: ET.Element, name: str, default: float | None = None) -> float:
    """A number below an element."""
    text = item.findtext(name)
    try:
        value = default if text is None and default is not None else float(text or "")
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        what = f"{name} is {text!r}, not a number"
        raise UsageError(Code.UNREADABLE_LIST, path, what, "correct it") from None
    return value


def _picture(images: Path, stem: str, told: str | None) -> Path:
    """The picture that a file of annotations is of: with its own name, or with the name told."""
    own = [images / f"{stem}{suffix}" for suffix in SUFFIXES]
    found = next((path for path in own if path.is_file()), None)
    return found or _inside(images, told.strip() if told else f"{stem}.jpg")


def _listed(annotations: Path, line: str) -> str:
    """The name in a line of VOC's lists, with its spaces; those of a class have a second column."""
    name = SECOND_COLUMN.sub("", line)
    return line if name != line and (annotations / f"{line}.xml").is_file() else name


def _inside(folder: Path, name: str) -> Path:
    """A file of a folder by its name in a list."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise UsageError(Code.REFUSED_NAME, name, f"is no name of a file in {folder}")
    return folder / name


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "file of annotations"))
    except (ValueError, RecursionError) as error:
        what = f"is not JSON ({error})"
        raise UsageError(Code.UNREADABLE_LIST, path, what, "fetch it anew") from error


def _some(images: list[AnnotatedImage], source: Path) -> list[AnnotatedImage]:
    if not images:
        raise UsageError(Code.UNREADABLE_LIST, source, "lists no picture")
    return images
