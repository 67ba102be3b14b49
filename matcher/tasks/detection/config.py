"""What a detector is made of, and the published ones by name."""

from __future__ import annotations

from dataclasses import field
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from matcher.network.pyramid import NAMES, PyramidConfig
from matcher.tasks.detection.labels import COCO_LABELS
from matcher.validation.checked import Name, NotNegative, Positive, checked, invalid

STRIDES = (8, 16, 32, 64, 128)
"""Pixels of a cell of P3 to P7."""
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
"""Sizes of the anchors of a cell, relative to the smallest."""
RATIOS = (0.5, 1.0, 2.0)
"""Their heights over their widths."""
ANCHORS = len(SCALES) * len(RATIOS)
"""Of a cell."""


@checked("model.")
class DetectorConfig:
    """RetinaNet on a pyramid; the published detector on QuadTree-B b0 by default."""

    backbone: PyramidConfig = field(default_factory=lambda: NAMES["quadtree_b0_dense"])
    channels: Positive = 256
    """Channels of the feature pyramid and of both towers."""
    layers: NotNegative = 4
    """Convolutions of each tower."""
    anchor_size: Annotated[float, Field(ge=0.25, le=64)] = 4.0
    """Side of the smallest anchor of a level in its cells."""
    labels: tuple[Name, ...] = ()
    """Names of the classes; empty: COCO's 80."""
    shorter: Positive = 800
    """Pixels to which the shorter side of an image is resized, as long as the longer one allows."""
    longer: Positive = 1333
    """Pixels of the longer side, at most."""

    def __post_init__(self) -> None:
        if self.backbone.classes:
            raise invalid("model.backbone.classes", self.backbone.classes, "0: there is no head")
        if len(set(self.labels)) < len(self.labels):
            raise invalid("model.labels", self.labels, "names that differ")
        if self.longer < self.shorter:
            raise invalid("model.longer", self.longer, f"at least shorter={self.shorter}")

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.labels or COCO_LABELS


PUBLISHED: MappingProxyType[str, DetectorConfig] = MappingProxyType(
    {
        name: DetectorConfig(backbone=backbone)
        for name, backbone in NAMES.items()
        if name.endswith("_dense")
    }
)
"""The published detectors by the names of their backbones, ``quadtree_b0_dense`` to ``b4_dense``:
no file of weights says which it is."""
