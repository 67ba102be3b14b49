"""What a matcher is made of: frozen dataclasses, validated on construction.

The defaults are the published QuadTree ``outdoor`` model; `COMPACT` is the bundled one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from matcher.errors import Code, UsageError

T = TypeVar("T")


def invalid(option: str, value: object, expected: str) -> UsageError:
    """The error for an option with a value that cannot work."""
    return UsageError(Code.INVALID_VALUE, option, f"got {value!r}", f"expected {expected}")


def require_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        near = get_close_matches(str(value), allowed, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise invalid(option, value, f"one of {', '.join(allowed)}{hint}")


def require_bool(option: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise invalid(option, value, "true or false")


def require_at_least(option: str, low: int, *values: int) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise invalid(option, value, f"an integer of at least {low}")


def require_positive(option: str, *values: int) -> None:
    require_at_least(option, 1, *values)


def require_range(option: str, value: float, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise invalid(option, value, f"a finite number from {low} to {high}")


@dataclass(frozen=True)
class BackboneConfig:
    """A ResNet with a feature pyramid (`matcher.network.backbone`)."""

    resolution: tuple[int, int] = (8, 2)
    """Strides of the coarse and the fine map: (8, 2) or (16, 4)."""
    initial_dim: int = 128
    """Channels of the stem at 1/2."""
    block_dims: tuple[int, ...] = (128, 196, 256)
    """Channels at 1/2, 1/4, 1/8 (and 1/16); the last is the coarse width."""
    depths: tuple[int, ...] = (2, 2, 2)
    """Residual blocks a stage."""
    pyramid: str = "wide"
    """How the fine map is merged: ``wide`` as published, ``lean`` at a fifth of the cost."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "resolution", tuple(self.resolution))
        object.__setattr__(self, "block_dims", tuple(self.block_dims))
        object.__setattr__(self, "depths", tuple(self.depths))
        if self.resolution not in ((8, 2), (16, 4)):
            raise invalid("backbone.resolution", self.resolution, "(8, 2) or (16, 4)")
        stages = 3 if self.resolution == (8, 2) else 4
        for name in ("block_dims", "depths"):
            values = getattr(self, name)
            require_positive(f"backbone.{name}", *values)
            if len(values) != stages:
                raise invalid(
                    f"backbone.{name}",
                    values,
                    f"{stages} values for backbone.resolution={self.resolution}",
                )
        require_positive("backbone.initial_dim", self.initial_dim)
        require_choice("backbone.pyramid", self.pyramid, ("wide", "lean"))

    @property
    def coarse_dim(self) -> int:
        return self.block_dims[-1]

    @property
    def fine_dim(self) -> int:
        return self.block_dims[-3]


@dataclass(frozen=True)
class PositionConfig:
    """The 2-D sine position encoding added before the first layer (`matcher.network.position`)."""

    variant: str = "fixed"
    """``fixed`` (QuadTree weights), ``legacy`` (LoFTR's own weights) or ``none``."""
    shift: int = 0
    """Training only: each image's origin is drawn from 0..shift cells, so that positions beyond
    the training size are seen (shifted absolute position embedding). 0 turns it off."""

    def __post_init__(self) -> None:
        require_choice("position.variant", self.variant, ("fixed", "legacy", "none"))
        require_at_least("position.shift", 0, self.shift)


@dataclass(frozen=True)
class TransformerConfig:
    """The interleaved self and cross layers on the coarse map (`matcher.network.transformer`)."""

    layers: tuple[str, ...] = ("self", "cross") * 4
    """Which map each layer looks at, its own or the other image's: ``self`` or ``cross``."""
    heads: int = 8
    """Attention heads, which share the channels evenly."""
    block: str = "quadtree"
    """``quadtree``: pre-norm with a convolutional MLP; ``loftr``: LoFTR's post-norm layer."""
    attention: str = "quadtree"
    """``quadtree``, ``linear`` (LoFTR) or ``full``."""
    variant: str = "B"
    """QuadTree variant ``A`` or ``B``."""
    topks: tuple[int, ...] = (16, 8, 8)
    """Keys kept at each level, coarsest first; their number is the number of levels."""
    coarsest_cells: int = 0
    """Most cells of the coarsest level: larger maps get more levels, which only choose where the
    trained ones look; 0 keeps the levels of `topks` at every size."""
    pyramid: str = "average"
    """How self-attention layers pool their values: ``average`` or a learned ``conv``."""
    lepe: bool = False
    """Locally enhanced position encoding in the self-attention layers."""
    mlp_ratio: int = 4
    """Hidden channels of the MLP over those of the map (block=quadtree)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "topks", tuple(self.topks))
        for layer in self.layers:
            require_choice("transformer.layers", layer, ("self", "cross"))
        require_positive("transformer.heads", self.heads)
        require_positive("transformer.mlp_ratio", self.mlp_ratio)
        require_choice("transformer.block", self.block, ("quadtree", "loftr"))
        require_choice("transformer.attention", self.attention, ("quadtree", "linear", "full"))
        require_choice("transformer.variant", self.variant, ("A", "B"))
        require_choice("transformer.pyramid", self.pyramid, ("average", "conv"))
        if not self.topks:
            raise invalid("transformer.topks", self.topks, "at least one level")
        require_positive("transformer.topks", *self.topks)
        require_at_least("transformer.coarsest_cells", 0, self.coarsest_cells)
        if self.block == "loftr" and self.attention == "quadtree":
            raise invalid(
                "transformer.attention",
                self.attention,
                "linear or full with block=loftr",
            )

    @property
    def levels(self) -> int:
        """Pyramid levels of the attention; 1 where it has no pyramid."""
        return len(self.topks) if self.attention == "quadtree" else 1


@dataclass(frozen=True)
class CoarseConfig:
    """Matching of coarse cells (`matcher.network.sinkhorn`)."""

    match_type: str = "dual_softmax"
    """``dual_softmax`` or ``sinkhorn``."""
    threshold: float = 0.2
    """Confidence, from 0 to 1, above which a match is kept."""
    border: int = 2
    """Cells along the border that take no match."""
    temperature: float = 0.1
    """Of the dual-softmax."""
    sinkhorn_iterations: int = 3
    """Sinkhorn only: how often rows and columns are normalised."""
    prefilter: bool = False
    """Sinkhorn only: drop rows and columns whose best partner is the dustbin."""

    def __post_init__(self) -> None:
        require_choice("coarse.match_type", self.match_type, ("dual_softmax", "sinkhorn"))
        require_range("coarse.threshold", self.threshold, 0.0, 1.0)
        require_range("coarse.temperature", self.temperature, 1e-4, 1e4)
        require_positive("coarse.sinkhorn_iterations", self.sinkhorn_iterations)
        require_at_least("coarse.border", 0, self.border)


@dataclass(frozen=True)
class FineConfig:
    """Sub-pixel refinement in windows of the fine map (`matcher.network.fine`)."""

    window: int = 5
    """Side of the window in fine pixels, odd."""
    layers: tuple[str, ...] = ("self", "cross")
    """LoFTR layers with linear attention inside the windows; none is allowed."""
    heads: int = 8
    """Of these layers."""
    use_coarse: bool = True
    """Add the coarse features to the windows."""
    normalize: bool = False
    """Compare directions of features, with a learned sharpness; else products, as published."""
    local: int = 0
    """The position is the mean of the samples at most so far from the best one, along x and y; 0:
    of the whole window, as published."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        for layer in self.layers:
            require_choice("fine.layers", layer, ("self", "cross"))
        require_positive("fine.heads", self.heads)
        require_positive("fine.window", self.window)
        if self.window % 2 == 0 or self.window < 3:
            raise invalid("fine.window", self.window, "an odd number of at least 3")
        require_at_least("fine.local", 0, self.local)


@dataclass(frozen=True)
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
            raise invalid(
                "backbone.block_dims", self.backbone.block_dims, "a last value divisible by 4"
            )

    @property
    def canvas(self) -> int:
        """Images are padded to a multiple of this many pixels."""
        return self.backbone.resolution[0] * 2 ** (self.transformer.levels - 1)


COMPACT = MatcherConfig(
    backbone=BackboneConfig(
        initial_dim=32, block_dims=(32, 64, 128), depths=(1, 2, 3), pyramid="lean"
    ),
    position=PositionConfig(shift=64),
    transformer=TransformerConfig(
        layers=("self", "cross") * 2, heads=4, topks=(20, 28, 8), mlp_ratio=2
    ),
    fine=FineConfig(window=7, layers=(), heads=4, normalize=True, local=1),
)
"""The bundled model, small enough for a laptop CPU."""


def config_from_dict(kind: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Build a (nested) config dataclass from plain values, refusing unknown keys.

    Args:
        kind: a frozen config dataclass, such as `MatcherConfig`.
        values: plain values, as read from YAML or JSON.
        path: dotted name of `values`, for messages.

    Raises:
        UsageError: an unknown key (with the nearest valid one) or a value that cannot work.
    """
    if not is_dataclass(kind):
        raise TypeError(f"{kind!r} is not a config dataclass")
    if not isinstance(values, Mapping):
        raise invalid(path or kind.__name__, values, "a group of options")
    known = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), list(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise UsageError(Code.UNKNOWN_OPTION, f"{path}{key}", "unknown option", hint)
    parts: dict[str, Any] = {}
    for key, value in values.items():
        nested = known[key].default_factory
        if isinstance(nested, type) and is_dataclass(nested):
            parts[key] = config_from_dict(nested, value, f"{path}{key}.")
        else:
            if known[key].type in (bool, "bool"):
                require_bool(f"{path}{key}", value)
            parts[key] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**parts)
    except TypeError as error:
        raise UsageError(
            Code.INVALID_VALUE, path.rstrip(".") or kind.__name__, str(error)
        ) from error


def config_to_dict(config: object) -> dict[str, Any]:
    """Plain values of a config dataclass, for JSON."""
    if not is_dataclass(config) or isinstance(config, type):
        raise TypeError(f"{config!r} is not a config")
    return asdict(config)
