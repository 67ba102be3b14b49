"""What a matcher is made of: frozen dataclasses, checked on construction.

The defaults are the published QuadTree ``outdoor`` model.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from typing import Annotated, Literal, get_args

from pydantic import Field

from matcher.validation.checked import NotNegative, Positive, Share, checked, invalid

Layer = Literal["self", "cross"]
"""Which map a layer looks at, its own or the other image's."""
AttentionName = Literal["quadtree", "linear", "full", "pvt", "swin", "focal"]
"""All kinds of attention (`matcher.attention.KINDS`)."""
CrossAttentionName = Literal["quadtree", "linear", "full", "pvt"]
"""Those that can look from one map at another."""
Resolution = Annotated[
    tuple[Literal[8], Literal[2]] | tuple[Literal[16], Literal[4]],
    Field(description="(8, 2) or (16, 4)"),
]
TopKs = Annotated[
    tuple[Positive, ...],
    Field(min_length=1, description="at least one level, each an integer of at least 1"),
]


@checked("backbone.")
class BackboneConfig:
    """A ResNet with a feature pyramid (`matcher.network.backbone`)."""

    resolution: Resolution = (8, 2)
    """Strides of the coarse and the fine map; only older published files have (16, 4)."""
    initial_dim: Positive = 128
    """Channels of the stem at 1/2."""
    block_dims: tuple[Positive, ...] = (128, 196, 256)
    """Channels at 1/2, 1/4, 1/8 (and 1/16); the last is the coarse width."""
    depths: tuple[Positive, ...] = (2, 2, 2)
    """Residual blocks a stage."""
    pyramid: Literal["wide", "lean"] = "wide"
    """How the fine map is merged: ``wide`` as published, ``lean`` at a fifth of the cost."""

    def __post_init__(self) -> None:
        stages = 3 if self.resolution == (8, 2) else 4
        for name, values in (("block_dims", self.block_dims), ("depths", self.depths)):
            if len(values) != stages:
                expected = f"{stages} values for backbone.resolution={self.resolution}"
                raise invalid(f"backbone.{name}", values, expected)

    @property
    def coarse_dim(self) -> int:
        return self.block_dims[-1]

    @property
    def fine_dim(self) -> int:
        return self.block_dims[-3]


@checked("position.")
class PositionConfig:
    """The 2-D sine position encoding added before the first layer (`matcher.network.position`)."""

    variant: Literal["fixed", "legacy", "none"] = "fixed"
    """``fixed`` (QuadTree weights), ``legacy`` (LoFTR's own weights) or ``none``."""
    shift: NotNegative = 0
    """Training only: each image's origin is drawn from 0..shift cells, so that positions beyond
    the training size are seen (shifted absolute position embedding). 0 turns it off."""


@checked("transformer.")
class TransformerConfig:
    """The interleaved self and cross layers on the coarse map (`matcher.network.transformer`)."""

    layers: tuple[Layer, ...] = ("self", "cross") * 4
    """Which map each layer looks at, its own or the other image's: ``self`` or ``cross``."""
    heads: Positive = 8
    """Attention heads, which share the channels evenly."""
    block: Literal["quadtree", "loftr"] = "quadtree"
    """``quadtree``: pre-norm with a convolutional MLP; ``loftr``: LoFTR's post-norm layer."""
    attention: AttentionName = "quadtree"
    """``quadtree``, ``linear`` (LoFTR), ``full``, ``pvt``, ``swin`` or ``focal``; the last two in
    self layers only."""
    cross_attention: CrossAttentionName | None = None
    """Kind of the cross layers: ``quadtree``, ``linear``, ``full`` or ``pvt``; null: as
    `attention`."""
    variant: Literal["A", "B"] = "B"
    """QuadTree variant ``A`` or ``B``."""
    topks: TopKs = (16, 8, 8)
    """Keys kept at each level, coarsest first; their number is the number of levels."""
    coarsest_cells: NotNegative = 0
    """Most cells of the coarsest level: larger maps get more levels, which only choose where the
    trained ones look; 0 keeps the levels of `topks` at every size."""
    mlp_ratio: Positive = 4
    """Hidden channels of the MLP over those of the map (block=quadtree)."""
    reduction: Positive = 2
    """pvt: side in cells of what becomes one key; it costs reduction^2 C^2 parameters a layer."""
    window: Positive = 8
    """swin, focal: side of a window in cells."""

    def __post_init__(self) -> None:
        kinds = {self.attention_of(layer) for layer in self.layers}
        if self.block == "loftr" and "quadtree" in {self.attention, *kinds}:
            expected = "linear or full with block=loftr"
            raise invalid("transformer.attention", self.attention, expected)
        if "cross" in self.layers and self.attention_of("cross") in ("swin", "focal"):
            kinds = ", ".join(get_args(CrossAttentionName))
            expected = f"cross_attention={kinds} beside it: windows cannot look at the other image"
            raise invalid("transformer.attention", self.attention, expected)

    def attention_of(self, layer: Layer) -> AttentionName:
        """The kind of attention of the self or of the cross layers."""
        return self.cross_attention or self.attention if layer == "cross" else self.attention

    @property
    def levels(self) -> int:
        """Most pyramid levels of the attention of a layer; 1 where none has a pyramid."""
        kinds = {self.attention_of(layer) for layer in self.layers}
        return len(self.topks) if "quadtree" in kinds else 1


@checked("coarse.")
class CoarseConfig:
    """Matching of coarse cells (`matcher.network.sinkhorn`)."""

    match_type: Literal["dual_softmax", "sinkhorn"] = "dual_softmax"
    """``dual_softmax`` or ``sinkhorn``."""
    threshold: Share = 0.2
    """Confidence, from 0 to 1, above which a match is kept."""
    border: NotNegative = 2
    """Cells along the border that take no match."""
    routing: Literal["exact", "routed", "auto"] = "exact"
    """Which pairs of cells inference scores with the dual-softmax: all (``exact``), those of the
    blocks that coarser levels find alike (``routed``: time in proportion to the cells), or
    whichever is faster (``auto``)."""
    temperature: Annotated[float, Field(ge=1e-4, le=1e4)] = 0.1
    """Temperature of the dual-softmax."""
    sinkhorn_iterations: Positive = 3
    """Sinkhorn only: how often rows and columns are normalized."""
    prefilter: bool = False
    """Sinkhorn only, and of older published files: drop rows and columns whose best partner is
    the dustbin."""

    def __post_init__(self) -> None:
        if self.routing == "routed" and self.match_type == "sinkhorn":
            raise invalid("coarse.routing", self.routing, "exact or auto with sinkhorn")


@checked("fine.")
class FineConfig:
    """Sub-pixel refinement in windows of the fine map (`matcher.network.fine`)."""

    window: Annotated[int, Field(ge=3)] = 5
    """Side of the window in fine pixels, odd."""
    layers: tuple[Layer, ...] = ("self", "cross")
    """LoFTR layers with linear attention inside the windows; none is allowed."""
    heads: Positive = 8
    """Attention heads of these layers."""
    use_coarse: bool = True
    """Add the coarse features to the windows."""
    normalize: bool = False
    """Compare directions of features, with a learned sharpness; else products, as published."""
    local: NotNegative = 0
    """The position is the mean of the samples at most so far from the best one, along x and y; 0:
    of the whole window, as published."""

    def __post_init__(self) -> None:
        if self.window % 2 == 0:
            raise invalid("fine.window", self.window, "an odd number of at least 3")


@checked()
class MatcherConfig:
    """The whole matcher. `MatcherConfig()` is the published QuadTree ``outdoor`` model."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    position: PositionConfig = field(default_factory=PositionConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    coarse: CoarseConfig = field(default_factory=CoarseConfig)
    fine: FineConfig = field(default_factory=FineConfig)

    def __post_init__(self) -> None:
        for option, dim, heads in (
            ("transformer.heads", self.backbone.coarse_dim, self.transformer.heads),
            ("fine.heads", self.backbone.fine_dim, self.fine.heads),
        ):
            if dim % heads:
                raise invalid(option, heads, f"a divisor of the {dim} channels of the backbone")
        if self.position.variant != "none" and self.backbone.coarse_dim % 4:
            dims = self.backbone.block_dims
            raise invalid("backbone.block_dims", dims, "a last value divisible by 4")

    @cached_property
    def canvas(self) -> int:
        """Images are padded to a multiple of this many pixels."""
        return self.backbone.resolution[0] * 2 ** (self.transformer.levels - 1)
