"""What a stereo network is made of, validated on construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from matcher.config import invalid, require_at_least, require_choice, require_positive

CrossAttention = Literal["tree", "full"]


@dataclass(frozen=True)
class StereoConfig:
    """The network of the bundled weights by default."""

    channels: int = 48
    """C of the maps at 1/4, on which attention works."""
    fine_channels: int = 32
    """Channels at 1/2, on which disparity is refined."""
    deep_channels: int = 96
    """Channels at 1/8."""
    layers: int = 2
    """Pairs of one self and one cross attention; 0: convolutions alone."""
    heads: int = 4
    mlp_ratio: int = 2
    """Width of the convolutional MLP of a block, in C."""
    self_topks: tuple[int, ...] = (6, 6, 6)
    """Keys that descend at each level of the 2-D QuadTree, coarsest first."""
    cross: CrossAttention = "tree"
    """Attention along rows: a ``tree`` of blocks of four, or ``full`` rows."""
    cross_topks: tuple[int, ...] = (4, 4)
    """Keys that descend at each level of a row."""
    coarsest_keys: int = 128
    """Where the coarsest level of a row has more keys than this, coarser levels that only choose
    where to look are put on top."""
    window: int = 2
    """Cells on each side of the most probable one that enter its disparity."""
    reach: int = 4
    """Steps at 1/2 to each side over which the refinement compares both views."""
    refine_channels: int = 48

    def __post_init__(self) -> None:
        for name in ("self_topks", "cross_topks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            require_positive(f"stereo.{name}", *getattr(self, name), len(getattr(self, name)))
        for name in ("channels", "fine_channels", "deep_channels", "heads", "mlp_ratio"):
            require_positive(f"stereo.{name}", getattr(self, name))
        for name in ("coarsest_keys", "window", "reach", "refine_channels"):
            require_positive(f"stereo.{name}", getattr(self, name))
        require_at_least("stereo.layers", 0, self.layers)
        require_choice("stereo.cross", self.cross, get_args(CrossAttention))
        if self.channels % self.heads:
            raise invalid("stereo.heads", self.heads, f"a divisor of channels={self.channels}")

    @property
    def multiple(self) -> int:
        """Of pixels, to which images are padded: whole cells at 1/8 and in the 2-D tree."""
        return max(8, 4 * 2 ** (len(self.self_topks) - 1))
