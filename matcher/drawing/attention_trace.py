"""What a matcher looks at: the blocks that attention weighs for one point of image 0.

`trace_attention` runs the transformer once and keeps what its layers saw. The trace then answers
for any point: the blocks of each QuadTree level, full and linear attention on the same features,
and the confidence of every cell of image 1. All answers are `Blocks` in original pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.attention.pyramid import MapSize, to_quad
from matcher.attention.quadtree import Level, QuadTreeAttention
from matcher.attention.record import AttentionCall, AttentionRecorder
from matcher.images.load import ImageSource
from matcher.images.preprocess import PreparedImage, PreparedPair
from matcher.network.coarse import CoarseMatcher
from matcher.network.dual_softmax import BLOCK_ELEMENTS
from matcher.network.model import FeatureMatcher
from matcher.predictor import Predictor
from matcher.runtime import own_settings
from matcher.validation.checked import invalid


@dataclass(frozen=True)
class Blocks:
    """Weighted rectangles of an image, the heaviest first."""

    boxes: np.ndarray
    """(K, 4) left, top, right, bottom edges in pixels of the original image."""
    scores: np.ndarray
    """(K,) float32"""
    opened: np.ndarray
    """(K,) bool: its four children are scored at the next level, by any of the heads asked for."""

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class AttentionTrace:
    """What the layers of a matcher saw of one pair."""

    model: FeatureMatcher
    pair: PreparedPair
    layers: tuple[LayerTrace, ...]
    coarse0: Tensor
    """(1, C, h0, w0) after the last layer; coarse1 (1, C, h1, w1) likewise"""
    coarse1: Tensor

    def target(self, layer: int) -> int:
        """The image that image 0 looks at in a layer: 0 or 1."""
        return 0 if self.layer(layer).name == "self" else 1

    def layer(self, layer: int) -> LayerTrace:
        """A layer by number; negative numbers count from the last."""
        if not -len(self.layers) <= layer < len(self.layers):
            raise invalid("layer", layer, f"a layer of 0 to {len(self.layers) - 1}")
        return self.layers[layer]

    def cell(self, point: Sequence[float]) -> int:
        """Raster index of the valid coarse cell of image 0 that is nearest to (x, y)."""
        seen = self.pair.input0
        cells = seen.valid.flatten().nonzero()[:, 0]
        centers = self.model.cell_centers(cells, seen.valid.shape[1])
        away = seen.to_original(centers) - torch.tensor([float(v) for v in point])
        return int(cells[away.square().sum(dim=1).argmin()])

    def quadtree(self, point: Sequence[float], layer: int, head: int | None = None) -> list[Blocks]:
        """The blocks that each level scored for a point, coarsest first.

        Args:
            point: (x, y) in pixels of the original image 0.
            head: None unites the heads: scores are their mean, 0 of one without the block.

        Raises:
            UsageError: no such layer or head, or attention without levels.
        """
        trace, heads, query = self._levels(point, layer, head)
        out = []
        for number, level in enumerate(trace.levels):
            side = 2 ** (len(trace.levels) - 1 - number)
            keys, scores = (x[heads, query[number]].flatten() for x in level)
            found, place = keys.unique(return_inverse=True)
            mean = scores.new_zeros(len(found)).index_add_(0, place, scores) / len(heads)
            opened = torch.isin(found, self._opened(trace, number, query, heads))
            h, w = self.pair[self.target(layer)].valid.shape
            raster = raster_of_quad((h // side, w // side), number + 1)[found]
            out.append(self._over(self.target(layer), side, raster, mean, opened))
        return out

    def merged(self, point: Sequence[float], layer: int, head: int | None = None) -> Blocks:
        """How the message of QuadTree attention weighs the finest cells, all levels together.

        A block shares its score evenly among its cells. Arguments and errors as `quadtree`.
        """
        trace, heads, query = self._levels(point, layer, head)
        h, w = self.pair[self.target(layer)].valid.shape
        total = torch.zeros(h, w)
        for number, level in enumerate(trace.levels):
            side = 2 ** (len(trace.levels) - 1 - number)
            for one in heads:
                keys, scores = (x[one, query[number]] for x in level)
                if trace.exclude_selected:
                    own = torch.isin(keys, self._opened(trace, number, query, [one]))
                    scores = scores.masked_fill(own, 0.0)
                spread = torch.zeros(h * w // side**2)
                spread[raster_of_quad((h // side, w // side), number + 1)[keys]] = scores
                grid = spread.reshape(h // side, w // side) / side**2
                grid = grid.repeat_interleave(side, 0).repeat_interleave(side, 1)
                total += trace.weights[number] * grid
        return self._cells(self.target(layer), total.flatten() / len(heads))

    def full(self, point: Sequence[float], layer: int, head: int | None = None) -> Blocks:
        """Softmax attention over all cells on the queries and keys of a layer."""
        query, key, valid = self._query_and_keys(point, layer, head)
        scores = (key @ query[:, :, None])[..., 0] * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~valid, -torch.inf).softmax(dim=-1)
        return self._cells(self.target(layer), scores.mean(dim=0))

    def linear(self, point: Sequence[float], layer: int, head: int | None = None) -> Blocks:
        """LoFTR's linear attention, with elu(x) + 1, on the queries and keys of a layer."""
        query, key, valid = self._query_and_keys(point, layer, head)
        scores = ((F.elu(key) + 1) @ (F.elu(query) + 1)[:, :, None])[..., 0]
        scores = scores.masked_fill(~valid, 0.0)
        scores = scores / scores.sum(dim=-1, keepdim=True)
        return self._cells(self.target(layer), scores.mean(dim=0))

    def confidence(self, point: Sequence[float]) -> Blocks:
        """The confidence that the cell at a point matches each cell of image 1."""
        cells0, cells1 = (each.valid[None].to(self.coarse0.device) for each in self.pair)
        maps = self.coarse0, self.coarse1
        row = confidence_row(self.model.coarse, *maps, self.cell(point), cells0, cells1)
        return self._cells(1, row.flatten().cpu())

    def _levels(
        self, point: Sequence[float], layer: int, head: int | None
    ) -> tuple[LayerTrace, list[int], list[int]]:
        """A layer, the heads that are asked, and the quad-order index of the query that covers
        the point at each level."""
        trace = self.layer(layer)
        if not trace.levels:
            kind = self._kind(trace)
            raise invalid("layer", layer, f"QuadTree attention; this layer has {kind} attention")
        heads, levels = self._heads(trace, head), len(trace.levels)
        h, w = self.pair.input0.valid.shape
        finest = int((raster_of_quad((h, w), levels) == self.cell(point)).nonzero())
        return trace, heads, [finest // 4 ** (levels - 1 - level) for level in range(levels)]

    def _heads(self, trace: LayerTrace, head: int | None) -> list[int]:
        count = trace.query.shape[0]
        if head is not None and not 0 <= head < count:
            raise invalid("head", head, f"a head of 0 to {count - 1}")
        return list(range(count)) if head is None else [head]

    def _kind(self, trace: LayerTrace) -> str:
        transformer = self.model.config.transformer
        return transformer.attention_of("self" if trace.name == "self" else "cross")

    def _opened(
        self, trace: LayerTrace, number: int, query: Sequence[int], heads: Sequence[int]
    ) -> Tensor:
        """Quad-order indices of the blocks of a level whose children were scored."""
        if number + 1 == len(trace.levels):
            return torch.zeros(0, dtype=torch.int64)
        return trace.levels[number + 1].keys[heads, query[number + 1]].flatten() // 4

    def _query_and_keys(
        self, point: Sequence[float], layer: int, head: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(H, D) and (H, S, D) of the heads that are asked, (S,) bool of valid keys."""
        trace = self.layer(layer)
        heads = self._heads(trace, head)
        valid = self.pair[self.target(layer)].valid.flatten()
        if trace.key.shape[1] != len(valid):
            kind = self._kind(trace)
            raise invalid(
                "layer", layer, f"attention to cells; that of {kind} is to blocks of them"
            )
        return trace.query[heads, self.cell(point)], trace.key[heads], valid

    def _cells(self, image: int, scores: Tensor) -> Blocks:
        """Blocks of the finest cells of an image from their scores in raster order."""
        nothing = torch.zeros(len(scores), dtype=torch.bool)
        return self._over(image, 1, torch.arange(len(scores)), scores, nothing)

    def _over(
        self, image: int, side: int, raster: Tensor, scores: Tensor, opened: Tensor
    ) -> Blocks:
        boxes = block_boxes(self.pair[image], side, self.model.stride, raster)
        order = scores.argsort(descending=True, stable=True)
        order = order[torch.from_numpy((boxes[:, 2:] > boxes[:, :2]).all(axis=1))[order]]
        return Blocks(boxes[order.numpy()], scores[order].float().numpy(), opened[order].numpy())


def raster_of_quad(size: MapSize, levels: int) -> Tensor:
    """(N,) raster index of each quad-order index of a map of `size` (h, w) with `levels` levels."""
    h, w = size
    return to_quad(torch.arange(h * w).reshape(1, 1, h, w), levels, heads=1)[0, 0, :, 0]


def block_boxes(seen: PreparedImage, side: int, stride: int, raster: Tensor) -> np.ndarray:
    """(K, 4) left, top, right, bottom edges, in original pixels, of blocks of cells.

    A cell is centered on its pixel and reaches half a stride to each side. Blocks are cut off at
    the edges of the image; one beyond them has no extent.

    Args:
        side: cells along the side of a block.
        stride: pixels of the network from cell to cell.
        raster: (K,) index of each block in the map of blocks.
    """
    columns = seen.valid.shape[1] // side
    corner = torch.stack([raster % columns, raster // columns], dim=1).float() * (side * stride)
    corner -= stride / 2
    ends = torch.stack([seen.to_original(corner), seen.to_original(corner + side * stride)])
    size = torch.tensor(seen.image.size, dtype=torch.float32)
    ends = ends.clamp(min=-0.5).minimum(size - 0.5)
    return torch.cat([ends.amin(dim=0), ends.amax(dim=0)], dim=1).numpy()


@own_settings()
def trace_attention(
    predictor: Predictor, image0: ImageSource, image1: ImageSource
) -> AttentionTrace:
    """Run the transformer of `predictor` on a pair and keep what its layers saw.

    Raises:
        UsageError: an image without a valid cell, or below 32 pixels; or so large that
            `coarsest_cells` of the model puts levels on top of the trained ones.
        UsageError, ImageError: as `Predictor.match`.
    """
    model, pair = predictor.model, predictor.reader.read(image0, image1)
    if pair.reason:
        raise invalid("images", pair.reason, "images of at least 32 pixels a side")
    features0, features1 = (
        model.extract(image.canvas[None].to(predictor.device)) for image in pair
    )
    masks = (image.valid[None].to(predictor.device) for image in pair)
    with AttentionRecorder(model.transformer.blocks) as recorder:
        output = model.match(features0, features1, *masks)
    layers = tuple(
        _layer_trace(name, recorder.call(layer, "0" if name == "self" else "0to1"))
        for layer, name in enumerate(model.transformer.names)
    )
    transformer = model.config.transformer
    if any(len(layer.levels) > transformer.levels for layer in layers):
        expected = f"0 to look at the attention of images of {max(pair.input0.image.size)} pixels"
        raise invalid("coarsest_cells", transformer.coarsest_cells, expected)
    return AttentionTrace(model, pair, layers, output.coarse0, output.coarse1)


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
    exclude_selected: bool
    """Blocks that are opened add nothing themselves (variant A)."""


def _layer_trace(name: str, call: AttentionCall) -> LayerTrace:
    attention = call.attention
    heads = int(getattr(attention, "heads"))  # noqa: B009
    query, key = (
        x[0].flatten(1).unflatten(0, (heads, -1)).transpose(1, 2).float().cpu()
        for x in (call.query, call.key)
    )
    if not isinstance(attention, QuadTreeAttention):
        return LayerTrace(name, query, key, (), (), exclude_selected=False)
    levels = tuple(
        Level(level.keys[0].cpu(), level.scores[0].float().cpu())
        for level in attention.levels(*call.arguments)
    )
    learned = attention.level_weights
    weights = [1.0] * len(levels) if learned is None else learned.softmax(dim=0).tolist()
    return LayerTrace(name, query, key, levels, tuple(weights), attention.variant == "A")


@torch.no_grad()
def confidence_row(
    matcher: CoarseMatcher,
    coarse0: Tensor,
    coarse1: Tensor,
    cell: int,
    mask0: Tensor,
    mask1: Tensor,
) -> Tensor:
    """(h1, w1) confidence that a cell of image 0 matches each cell of image 1.

    Equals a row of `CoarseMatcher.log_confidence`. With the dual-softmax only blocks of rows are
    held at a time; Sinkhorn holds all pairs, as it does when matching.

    Args:
        coarse0: (1, C, h0, w0) after the transformer; coarse1: (1, C, h1, w1).
        cell: raster index of the cell of image 0.
        mask0: (1, h0, w0) bool of valid cells; mask1 likewise.
    """
    size = coarse1.shape[-2:]
    if matcher.bin_score is not None:
        return matcher.log_confidence(coarse0, coarse1, mask0, mask1)[0, cell].exp().view(size)
    x0, x1 = matcher.tokens(coarse0)[0], matcher.tokens(coarse1)[0]
    valid0, valid1 = mask0.flatten(), mask1.flatten()
    columns = x0.new_full((len(x1),), -math.inf)
    for some in valid0.nonzero()[:, 0].split(max(1, BLOCK_ELEMENTS // len(x1))):
        columns = torch.logaddexp(columns, (x0[some] @ x1.T).logsumexp(dim=0))
    similarity = x1 @ x0[cell]
    row = similarity.masked_fill(~valid1, -math.inf).log_softmax(dim=0)
    confidence = (row + similarity - columns).exp()
    return confidence.masked_fill(~(valid0[cell] & valid1), 0.0).view(size)
