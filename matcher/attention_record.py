"""The transformer run once on a pair, with all that its attention calls saw of image 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from matcher.attention.quadtree import Level, QuadTreeAttention
from matcher.network.model import FeatureMatcher
from matcher.network.transformer import Recording


@dataclass(frozen=True)
class LayerTrace:
    """One attention call of image 0."""

    name: str
    """``self`` or ``cross``"""
    query: Tensor
    """(H, L, D) in raster order; key (H, S, D) likewise"""
    key: Tensor
    levels: tuple[Level, ...]
    """Coarsest first; empty where the attention has no levels."""
    weights: tuple[float, ...]
    """Share of each level in the message."""
    rest_only: bool
    """Blocks that are opened add nothing themselves (variant A)."""


def record_layers(
    model: FeatureMatcher, coarse: tuple[Tensor, Tensor], masks: tuple[Tensor, Tensor]
) -> tuple[tuple[LayerTrace, ...], Tensor, Tensor]:
    """What the layers saw, and the maps of both images after the last.

    Args:
        model: the matcher.
        coarse: (1, C, h, w) maps of both images before the position encoding.
        masks: (1, h, w) bool of valid cells of both.
    """
    recording: Recording = []
    with _projections(model) as inputs:
        coarse0, coarse1 = model.attend(*coarse, *masks, recording=recording)
    blocks = zip(model.transformer.names, model.transformer.blocks, strict=True)
    layers = tuple(
        _layer_trace(name, block, inputs[2 * i], recording[2 * i])
        for i, (name, block) in enumerate(blocks)
    )
    return layers, coarse0, coarse1


@contextmanager
def _projections(model: FeatureMatcher) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects the (query, key) maps of every attention call, image 0 then 1, layer by layer."""
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append((inputs[0], inputs[1]))

    hooks = [
        module.register_forward_pre_hook(keep)
        for name, module in model.transformer.named_modules()
        if name.endswith(".attention")
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _layer_trace(
    name: str, block: nn.Module, projections: tuple[Tensor, Tensor], levels: list[Level]
) -> LayerTrace:
    attention = block.get_submodule("attention")
    heads = int(getattr(attention, "heads"))  # noqa: B009
    query, key = (
        x[0].flatten(1).unflatten(0, (heads, -1)).transpose(1, 2).float().cpu() for x in projections
    )
    weights: tuple[float, ...] = (1.0,) * len(levels)
    learned = attention.level_weights if isinstance(attention, QuadTreeAttention) else None
    if learned is not None:
        weights = tuple(learned.softmax(dim=0).tolist())
    kept = tuple(Level(each.keys[0].cpu(), each.scores[0].float().cpu()) for each in levels)
    return LayerTrace(name, query, key, kept, weights, bool(levels) and learned is None)
