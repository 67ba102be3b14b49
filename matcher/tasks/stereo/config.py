"""What a stereo network is made of, validated on construction."""

from __future__ import annotations

from typing import Literal

from matcher.config import TopKs
from matcher.validation.checked import NotNegative, Positive, checked, invalid


@checked("stereo.")
class StereoConfig:
    """The network of the bundled weights by default."""

    channels: Positive = 48
    """C of the maps at 1/4, on which attention works."""
    fine_channels: Positive = 32
    """Channels at 1/2, on which disparity is refined."""
    deep_channels: Positive = 96
    """Channels at 1/8."""
    layers: NotNegative = 2
    """Pairs of one self and one cross attention; 0: convolutions alone."""
    heads: Positive = 4
    """Attention heads, which share the channels evenly."""
    mlp_ratio: Positive = 2
    """Width of the convolutional MLP of a block, in C."""
    self_topks: TopKs = (6, 6, 6)
    """Keys that descend at each level of the 2-D QuadTree, coarsest first."""
    cross: Literal["tree", "full"] = "tree"
    """Attention along rows: a ``tree`` of blocks of four, or ``full`` rows."""
    cross_topks: TopKs = (4, 4)
    """Keys that descend at each level of a row."""
    coarsest_keys: Positive = 128
    """Where the coarsest level of a row has more keys than this, coarser levels that only choose
    where to look are put on top."""
    window: Positive = 2
    """Cells on each side of the most probable one that enter its disparity."""
    reach: Positive = 4
    """Steps at 1/2 to each side over which the refinement compares both views."""
    refine_channels: Positive = 48
    """Channels of the layers that refine."""

    def __post_init__(self) -> None:
        if self.channels % self.heads:
            raise invalid("stereo.heads", self.heads, f"a divisor of channels={self.channels}")

    @property
    def multiple(self) -> int:
        """Of pixels, to which images are padded: whole cells at 1/8 and in the 2-D tree."""
        return max(8, 4 * 2 ** (len(self.self_topks) - 1))
