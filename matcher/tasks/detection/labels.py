"""COCO's 80 classes in their order, and the numbers that its files give them."""

from __future__ import annotations

from collections.abc import Sequence

COCO_LABELS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""Numbers from 1 to 91 that COCO planned for classes which its boxes do not have."""
COCO_NUMBERS = tuple(number for number in range(1, 92) if number not in UNUSED)
"""What COCO's files call each of `COCO_LABELS`."""


def category_numbers(labels: Sequence[str]) -> tuple[int, ...]:
    """The number of each class in a file: COCO's own for its classes, otherwise 1, 2, ..."""
    return COCO_NUMBERS if tuple(labels) == COCO_LABELS else tuple(range(1, len(labels) + 1))
