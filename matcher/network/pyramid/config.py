"""What a pyramid is made of, and the published ones by name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from matcher.validation.checked import NotNegative, Positive, Share, checked, invalid

Stages = Annotated[
    tuple[Positive, Positive, Positive, Positive],
    Field(description="four integers of at least 1, one a stage"),
]
PyramidAttentionName = Literal["quadtree", "linear", "full", "pvt", "swin", "focal"]


@checked("pyramid.")
class PyramidConfig:
    """A pyramid of four stages; QuadTree-B b0, the smallest published classifier, by default."""

    dims: Stages = (32, 64, 160, 256)
    """Channels of the maps at 1/4, 1/8, 1/16 and 1/32."""
    depths: Stages = (2, 2, 2, 2)
    """Blocks of each stage."""
    heads: Stages = (1, 2, 5, 8)
    """Attention heads of each stage, which share its channels evenly."""
    mlp_ratios: Stages = (8, 8, 4, 4)
    """Hidden channels of the MLP over those of the map."""
    attention: PyramidAttentionName = "quadtree"
    """``quadtree``, ``linear``, ``full``, ``pvt``, ``swin`` or ``focal``."""
    levels: Stages = (4, 3, 2, 1)
    """Levels of the QuadTree of each stage."""
    variant: Literal["A", "B"] = "B"
    """QuadTree variant ``A`` or ``B``."""
    topk: Positive = 8
    """Keys that descend from each level of the QuadTree."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Of the value branch: ``gelu`` in classifiers, ``relu`` in detection and segmentation."""
    value_branch: bool = True
    """Variant B: convolutions make the values of coarser levels; false: means, as of the keys."""
    lepe: bool = True
    """A depthwise convolution of the values is added to the message; never in variant A."""
    drop_best: bool = False
    """Variant A: at a stage of one level the best `topk` keys are left out, as published."""
    reductions: Stages = (8, 4, 2, 1)
    """PVT: side in cells of what becomes one key, for each stage."""
    window: Positive = 8
    """Swin and focal: side of a window in cells."""
    expand: NotNegative = 2
    """Focal: cells around its window that a query also sees."""
    neighbors: Positive = 3
    """Focal: side, in windows, of the square whose summaries a query sees, odd."""
    drop_path: Share = 0.1
    """Training: chance that the last block is left out for an image; it rises linearly from 0."""
    classes: NotNegative = 1000
    """Classes of the head; 0: no head."""

    def __post_init__(self) -> None:
        for dim, heads in zip(self.dims, self.heads, strict=True):
            if dim % heads:
                raise invalid("pyramid.heads", self.heads, f"divisors of dims={self.dims}")
        if self.neighbors % 2 == 0:
            raise invalid("pyramid.neighbors", self.neighbors, "an odd number")

    @property
    def multiple(self) -> int:
        """Of pixels, to which images are padded: whole cells of every stage and its QuadTree."""
        levels = self.levels if self.attention == "quadtree" else (1,) * 4
        return max(2 ** (stage + 2 + level - 1) for stage, level in enumerate(levels))


def _table() -> dict[str, PyramidConfig]:
    wide = {"dims": (64, 128, 320, 512)}
    sizes = {
        "b0": {},
        "b1": wide,
        "b2": {**wide, "depths": (3, 4, 6, 3)},
        "b3": {**wide, "depths": (3, 4, 18, 3)},
        "b4": {**wide, "depths": (3, 8, 27, 3)},
    }
    dense = {"activation": "relu", "topk": 32, "classes": 0}
    return {
        **{f"quadtree_{size}": PyramidConfig(**parts) for size, parts in sizes.items()},
        **{
            f"quadtree_{size}_dense": PyramidConfig(**parts, **dense)
            for size, parts in sizes.items()
        },
        "quadtree_a_b0": PyramidConfig(variant="A", lepe=False, drop_best=True),
    }


NAMES: MappingProxyType[str, PyramidConfig] = MappingProxyType(_table())
"""The published pyramids. A name carries what no file of weights says: ``quadtree_b0`` to ``b4``
are the classifiers (GELU, 8 keys), ``quadtree_b0_dense`` to ``b4_dense`` the backbones of detection
and segmentation (ReLU, 32 keys), ``quadtree_a_b0`` is variant A."""
