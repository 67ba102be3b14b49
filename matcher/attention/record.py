"""Recording of attention calls: what every layer was asked, for pictures, losses and measurements.

    with AttentionRecorder(model.transformer.blocks) as recorder:
        model(image0, image1)
    call = recorder.call(layer=1, direction="0to1")

A block reports its calls to the recorder that is active in its thread; there is none outside of a
``with`` block.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Literal, NamedTuple

from torch import Tensor, nn

Direction = Literal["0", "1", "0to1", "1to0"]
"""Who looks at whom: an image at itself, or one at the other."""


class Place(NamedTuple):
    """Where a call of a block stands in a transformer."""

    layer: int
    directions: tuple[Direction, ...]
    """One for each of the equal parts of the batch."""


class AttentionCall(NamedTuple):
    """Arguments of an attention, in one layer and direction."""

    layer: int
    direction: Direction
    attention: nn.Module
    query: Tensor
    """(B, C, h0, w0) projected, of the map that looks"""
    key: Tensor
    """(B, C, h1, w1) of the map that it looks at; `value` likewise"""
    value: Tensor
    query_mask: Tensor | None
    """(B, h0, w0) bool of valid tokens, None means everywhere"""
    key_mask: Tensor | None
    """(B, h1, w1)"""

    @property
    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """What the attention was called with."""
        return self.query, self.key, self.value, self.query_mask, self.key_mask


class AttentionRecorder:
    """Keeps the attention calls of one pass through a transformer inside a ``with`` block.

    Activations that are computed anew for a backward pass report again; that is not kept.

    Args:
        blocks: those that are listened to, such as all of `Transformer.blocks`.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        self._blocks = frozenset(blocks)
        self._calls: dict[tuple[int, Direction], AttentionCall] = {}
        self._token: Token[AttentionRecorder | None] | None = None

    def __enter__(self) -> AttentionRecorder:
        self._token = ACTIVE.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._token is not None:
            ACTIVE.reset(self._token)
        self._token = None

    @property
    def calls(self) -> tuple[AttentionCall, ...]:
        """All calls, layer by layer."""
        return tuple(self._calls.values())

    def call(self, layer: int, direction: Direction) -> AttentionCall:
        """The call of a layer.

        Raises:
            KeyError: that layer made none in that direction, or nobody listened.
        """
        return self._calls[layer, direction]

    def report(
        self,
        block: nn.Module,
        place: Place,
        maps: tuple[Tensor, Tensor, Tensor],
        masks: tuple[Tensor | None, Tensor | None],
    ) -> None:
        """Keep a call of the attention of `block`: its query, key and value, and their masks."""
        if block not in self._blocks:
            return
        count, attention = len(place.directions), block.get_submodule("attention")
        columns = [(None,) * count if x is None else x.chunk(count) for x in (*maps, *masks)]
        for direction, *arguments in zip(place.directions, *columns, strict=True):
            call = AttentionCall(place.layer, direction, attention, *arguments)
            self._calls.setdefault((place.layer, direction), call)


ACTIVE: ContextVar[AttentionRecorder | None] = ContextVar("attention_recorder", default=None)
"""The recorder of this thread or task."""
