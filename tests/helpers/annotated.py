"""Pictures of plain shapes with their boxes, in VOC's and in COCO's form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from matcher.network.pyramid import PyramidConfig
from matcher.tasks.detection.config import DetectorConfig

LABELS = ("red", "blue")
COLORS = ((210, 40, 40), (40, 60, 210))
BACKBONE = PyramidConfig(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), heads=(1, 2, 3, 4),
                         mlp_ratios=(2, 2, 2, 2), topk=4, classes=0, drop_path=0.0)  # fmt: skip
SMALL = DetectorConfig(
    backbone=BACKBONE, channels=24, layers=1, anchor_size=2.5, labels=LABELS, shorter=96, longer=128
)

Box = tuple[int, int, int, int, int]
"""x0, y0, x1, y1 in pixels, corner origin, and the number of the class."""


def shapes(count: int = 8, size: tuple[int, int] = (128, 96)) -> list[tuple[np.ndarray, list[Box]]]:
    """Pictures (H, W, 3) uint8 of one to three rectangles on noise, which do not touch."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(count):
        pixels = rng.integers(100, 150, (size[1], size[0], 3)).astype(np.uint8)
        boxes: list[Box] = []
        for column in range(int(rng.integers(1, 4))):
            width, height = rng.integers(18, 36, 2).tolist()
            x, y = column * 42 + int(rng.integers(0, 6)), int(rng.integers(0, size[1] - height))
            number = int(rng.integers(0, 2))
            pixels[y : y + height, x : x + width] = COLORS[number]
            boxes.append((x, y, x + width, y + height, number))
        out.append((pixels, boxes))
    return out


def write_voc(root: Path, count: int = 8) -> Path:
    """`root` with the pictures in VOC's form; lists ``train``, ``val`` and ``test`` hold all."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    names = [f"shape_{i}" for i in range(count)]
    for name, (pixels, boxes) in zip(names, shapes(count), strict=True):
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.png")
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(boxes, pixels.shape[:2]))
    for split in ("train", "val", "test"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
    return root


def voc_xml(boxes: list[Box], size: tuple[int, ...]) -> str:
    """VOC's XML: pixels counted from 1, the first and the last one of each box."""
    objects = "".join(
        f"<object><name>{LABELS[c]}</name><difficult>0</difficult><bndbox><xmin>{x0 + 1}</xmin>"
        f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for x0, y0, x1, y1, c in boxes
    )
    told = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    return f"<annotation>{told}{objects}</annotation>"


def write_coco(root: Path, count: int = 8) -> Path:
    """COCO's JSON of the pictures that `write_voc` writes, which it returns."""
    images, annotations = [], []
    for i, (pixels, boxes) in enumerate(shapes(count)):
        height, width = pixels.shape[:2]
        images.append(
            {"id": 10 + i, "file_name": f"shape_{i}.png", "width": width, "height": height}
        )
        for x0, y0, x1, y1, c in boxes:
            box = [x0, y0, x1 - x0, y1 - y0]
            annotations.append({"image_id": 10 + i, "category_id": 7 - c, "bbox": box})
    # The numbers of the file are none of ours: names tell.
    categories = [{"id": 7, "name": "red"}, {"id": 6, "name": "blue"}]
    path = root / "instances.json"
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path
