"""Files of detections: JSON as COCO's results, and CSV. Boxes are x, y, width, height in pixels
from the corner of the first one, as in COCO."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from matcher.files import write_atomically
from matcher.tasks.detection.labels import category_numbers
from matcher.tasks.detection.structures import Detections

COLUMNS = ("label", "score", "x", "y", "width", "height")


def coco_results(
    found: Detections, image: int | str, labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Entries of a file of results, ``image_id``, ``category_id``, ``bbox``, ``score``.

    Args:
        found: in an image.
        image: its number, or its name where it has none.
        labels: of all classes: COCO's have its numbers, others 1, 2, ...
    """
    numbers = category_numbers(labels)
    return [
        {"image_id": image, "category_id": numbers[i], "bbox": box, "score": score}
        for i, box, score in zip(
            found.indices.tolist(),
            corner_sizes(found).tolist(),
            found.scores.astype(float).round(5).tolist(),
            strict=True,
        )
    ]


def write_json(
    path: str | Path, found: Detections, image: int | str, labels: Sequence[str]
) -> None:
    """Write `coco_results`; StorageError where it cannot be written (E401)."""
    text = json.dumps(coco_results(found, image, labels), indent=1)
    write_atomically(path, text.encode())


def write_csv(path: str | Path, found: Detections) -> None:
    """Write a line a box below `COLUMNS`; StorageError where it cannot be written (E401)."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for label, score, box in zip(found.labels, found.scores, corner_sizes(found), strict=True):
        table.writerow([label, f"{score:.5f}", *(f"{value:.2f}" for value in box)])
    write_atomically(path, out.getvalue().encode())


def corner_sizes(found: Detections) -> np.ndarray:
    """(N, 4) float64 x, y, width, height to hundredths of a pixel, corner origin."""
    corners = found.corner_boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(2)
