"""PVT, Swin and Focal against what they are, written out in loops; masks, sizes and refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from matcher.attention import KINDS, Attention
from matcher.attention.dense import FullAttention
from matcher.attention.focal import FocalAttention
from matcher.attention.spatial_reduction import SpatialReductionAttention
from matcher.attention.windows import WindowAttention
from matcher.config import AttentionName, CrossAttentionName, TransformerConfig
from matcher.errors import UsageError
from matcher.network.block import QuadTreeBlock
from matcher.network.transformer import build_transformer

CHANNELS, HEADS = 8, 2
EXACT = 1e-6
Cell = tuple[int, int]
Seen = Callable[[Cell], list[tuple[Tensor, Tensor, Tensor]]]


def maps(*size: int, count: int = 3, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, CHANNELS, *size, generator=generator, dtype=torch.float64)
        for _ in range(count)
    ]


def some_mask(h: int, w: int) -> Tensor:
    mask = torch.ones(2, h, w, dtype=torch.bool)
    mask[0, h - 2 :] = False
    mask[1, :, w - 3 :] = False
    mask[1, 0, 0] = False
    return mask


def randomized(module: nn.Module) -> Any:
    torch.manual_seed(1)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return module


def written_out(query: Tensor, seen: Callable[[int, Cell], list[tuple[Tensor, ...]]]) -> Tensor:
    """The message cell by cell and head by head.

    Args:
        query: (B, C, h, w).
        seen: of an image and a cell: a key (C,), a value (C,) and a bias (H,) for all it sees.
    """
    out = torch.zeros_like(query)
    b, c, h, w = query.shape
    d = c // HEADS
    for image, row, column in itertools.product(range(b), range(h), range(w)):
        found = seen(image, (row, column))
        for head in range(HEADS if found else 0):
            part = slice(head * d, (head + 1) * d)
            q = query[image, part, row, column]
            scores = torch.stack([q @ k[part] / math.sqrt(d) + bias[head] for k, _, bias in found])
            values = torch.stack([v[part] for _, v, _ in found])
            out[image, part, row, column] = scores.softmax(0) @ values
    return out


def bias_of(table: Tensor, offset: Cell, reach: int) -> Tensor:
    """(H,) of a table of all offsets from -reach to reach."""
    return table[:, (offset[0] + reach) * (2 * reach + 1) + offset[1] + reach]


@pytest.mark.parametrize("shift", [0, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (3, 9)])
@torch.no_grad()
def test_windows_equal_a_loop_over_their_cells(shift: int, masked: bool, size: Cell) -> None:
    window = 4
    attention: WindowAttention = randomized(WindowAttention(HEADS, window, shift))
    query, key, value = maps(*size)
    mask = some_mask(*size) if masked else torch.ones(2, *size, dtype=torch.bool)

    def number(cell: Cell) -> Cell:
        row, column = (
            (x - (shift if side > window else 0)) // window
            for x, side in zip(cell, size, strict=True)
        )
        return row, column

    def seen(image: int, cell: Cell) -> list[tuple[Tensor, ...]]:
        cells = itertools.product(range(size[0]), range(size[1]))
        return [
            (
                key[image, :, r, c],
                value[image, :, r, c],
                bias_of(attention.bias, (r - cell[0], c - cell[1]), window - 1),
            )
            for r, c in cells
            if number((r, c)) == number(cell) and mask[image, r, c]
        ]

    message = attention(query, key, value, mask if masked else None, mask if masked else None)
    assert float((message - written_out(query, seen)).abs().max()) < EXACT


@pytest.mark.parametrize(("window", "expand", "neighbors"), [(4, 2, 3), (3, 1, 5), (2, 0, 3)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
@torch.no_grad()
def test_focal_equals_a_loop_over_cells_and_windows(
    window: int, expand: int, neighbors: int, masked: bool, size: Cell
) -> None:
    attention: FocalAttention = randomized(FocalAttention(HEADS, window, expand, neighbors))
    query, key, value = maps(*size)
    mask = some_mask(*size) if masked else torch.ones(2, *size, dtype=torch.bool)
    half = neighbors // 2

    def near(image: int, cell: Cell) -> list[tuple[Tensor, ...]]:
        first = [x // window * window - expand for x in cell]
        last = [x // window * window + window + expand for x in cell]
        return [
            (
                key[image, :, r, c],
                value[image, :, r, c],
                bias_of(attention.near_bias, (r - cell[0], c - cell[1]), window + expand - 1),
            )
            for r, c in itertools.product(range(size[0]), range(size[1]))
            if first[0] <= r < last[0] and first[1] <= c < last[1] and mask[image, r, c]
        ]

    def summary(x: Tensor, number: Cell) -> tuple[Tensor, bool]:
        total, any_valid = attention.pool.bias.expand(CHANNELS).clone(), False
        for i, j in itertools.product(range(window), range(window)):
            r, c = number[0] * window + i, number[1] * window + j
            if r < size[0] and c < size[1] and mask[image_of, r, c]:
                total += attention.pool.weight[0, i * window + j] * x[:, r, c]
                any_valid = True
        return total, any_valid

    image_of = 0

    def seen(image: int, cell: Cell) -> list[tuple[Tensor, ...]]:
        nonlocal image_of
        image_of = image
        found = near(image, cell)
        own = [x // window for x in cell]
        for i, j in itertools.product(range(-half, half + 1), range(-half, half + 1)):
            number = (own[0] + i, own[1] + j)
            if (i, j) == (0, 0) or min(number) < 0:
                continue
            if number[0] * window >= size[0] or number[1] * window >= size[1]:
                continue
            k, any_valid = summary(key[image], number)
            if any_valid:
                bias = attention.far_bias[:, (i + half) * neighbors + j + half]
                found.append((k, summary(value[image], number)[0], bias))
        return found

    message = attention(query, key, value, mask if masked else None, mask if masked else None)
    assert float((message - written_out(query, seen)).abs().max()) < EXACT


@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_pvt_equals_a_loop_over_its_blocks(masked: bool) -> None:
    """Of two maps of different sizes, in a block, whose projections the reduction precedes."""
    ratio, (h, w) = 3, (7, 8)
    attention = SpatialReductionAttention(CHANNELS, HEADS, ratio)
    block: QuadTreeBlock = randomized(QuadTreeBlock(CHANNELS, attention, 2))
    (x,), (target,) = maps(4, 5, count=1), maps(h, w, count=1, seed=1)
    mask = some_mask(h, w) if masked else torch.ones(2, h, w, dtype=torch.bool)
    normed = block.norm1(target.permute(0, 2, 3, 1))
    query = block.query(block.norm1(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)

    def seen(image: int, cell: Cell) -> list[tuple[Tensor, ...]]:
        found = []
        for row, column in itertools.product(range(-(-h // ratio)), range(-(-w // ratio))):
            total, any_valid = attention.convolution.bias.clone(), False
            for i, j in itertools.product(range(ratio), range(ratio)):
                r, c = row * ratio + i, column * ratio + j
                if r < h and c < w and mask[image, r, c]:
                    total += attention.convolution.weight[:, :, i, j] @ normed[image, r, c]
                    any_valid = True
            if any_valid:
                token = attention.norm(total)
                key, value = block.key.weight @ token, block.value.weight @ token
                found.append((key, value, torch.zeros(HEADS).double()))
        return found

    message = written_out(query, seen).permute(0, 2, 3, 1)
    expected = block.update(x.permute(0, 2, 3, 1), message, None).permute(0, 3, 1, 2)
    result = block(x, target, None, mask if masked else None)
    assert float((result - expected).abs().max()) < EXACT


@pytest.mark.parametrize(
    "attention",
    [
        WindowAttention(HEADS, 9).double(),
        WindowAttention(HEADS, 9, 4).double(),
        WindowAttention(HEADS, 16, 8).double(),
        FocalAttention(HEADS, 9, 3, 3).double(),
        FocalAttention(HEADS, 9, 0, 5).double(),
        SpatialReductionAttention(CHANNELS, HEADS, 1).double(),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_one_window_over_all_is_full_attention(attention: Attention, masked: bool) -> None:
    query, key, value = maps(7, 9)
    mask = some_mask(7, 9) if masked else None
    message = attention(query, key, value, mask, mask)
    expected = FullAttention(HEADS)(query, key, value, mask, mask)
    assert float((message - expected).abs().max()) < EXACT


def layer(kind: str, *layers: Literal["self", "cross"], **changes: Any) -> TransformerConfig:
    options = {"topks": (3, 3), "window": 4, "reduction": 2, "mlp_ratio": 2, **changes}
    return TransformerConfig(attention=kind, layers=layers, heads=HEADS, **options)


@pytest.mark.parametrize("kind", get_args(AttentionName))
@torch.no_grad()
def test_masked_cells_have_no_influence_in_a_self_layer(kind: str) -> None:
    transformer = randomized(build_transformer(layer(kind, "self", "self"), CHANNELS))
    x0, x1, y0, y1 = maps(8, 12, count=4)
    mask = some_mask(8, 12)
    keep = mask[:, None]
    results = [
        transformer(a, b, mask, mask)[0]
        for a, b in ((x0, x1), (torch.where(keep, x0, 5 * y0), torch.where(keep, x1, 5 * y1)))
    ]
    assert not ((results[0] - results[1]) * keep).any()


@pytest.mark.parametrize("kind", get_args(CrossAttentionName))
@torch.no_grad()
def test_masked_cells_have_no_influence_between_maps_of_two_sizes(kind: str) -> None:
    transformer = randomized(build_transformer(layer(kind, "cross", "self", "cross"), CHANNELS))
    (x0, y0), (x1, y1) = maps(8, 12, count=2), maps(6, 10, count=2, seed=1)
    mask0, mask1 = some_mask(8, 12), some_mask(6, 10)
    first = transformer(x0, x1, mask0, mask1)
    changed0, changed1 = torch.where(mask0[:, None], x0, y0), torch.where(mask1[:, None], x1, y1)
    second = transformer(changed0, changed1, mask0, mask1)
    assert first[0].shape == x0.shape
    assert first[1].shape == x1.shape
    for a, b, mask in zip(first, second, (mask0, mask1), strict=True):
        assert not ((a - b) * mask[:, None]).any()


@pytest.mark.parametrize("kind", get_args(AttentionName))
@torch.no_grad()
def test_without_a_valid_key_the_message_is_zero(kind: str) -> None:
    attention = KINDS[kind].from_config(layer(kind, "self"), CHANNELS, 0).double()
    query, key, value = maps(8, 8)
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[1] = True
    message = attention(query, key, value, None, mask)
    assert not message[0].any()
    assert message[1].any()


@pytest.mark.parametrize("kind", get_args(AttentionName))
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    transformer = build_transformer(layer(kind, "self", "self"), CHANNELS).double()
    x0, x1 = maps(8, 12, count=2)
    mask = some_mask(8, 12)
    sum(out.square().sum() for out in transformer(x0, x1, mask, mask)).backward()
    for name, parameter in transformer.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("kind", ["swin", "focal"])
def test_windows_cannot_look_at_the_other_image(kind: str) -> None:
    told = f"E201 transformer.attention: got '{kind}'; expected cross_attention=quadtree, "
    with pytest.raises(UsageError, match=told):
        layer(kind, "self", "cross")
    attention = KINDS[kind].from_config(layer(kind, "self"), CHANNELS, 0)
    with pytest.raises(ValueError, match="needs one grid"):
        attention(maps(8, 8)[0], *maps(8, 12)[:2])


@pytest.mark.parametrize("kind", ["swin", "focal"])
def test_beside_windows_another_kind_crosses(kind: str) -> None:
    config = layer(kind, "self", "cross", cross_attention="quadtree")
    transformer = build_transformer(config, CHANNELS)
    names = [type(block.get_submodule("attention")).__name__ for block in transformer.blocks]
    assert names == [KINDS[kind].__name__, "QuadTreeAttention"]
    assert config.levels == 2


def test_every_second_self_layer_of_swin_is_shifted() -> None:
    config = layer("swin", "self", "cross", "self", "cross", "self", cross_attention="full")
    blocks = build_transformer(config, CHANNELS).blocks
    shifts = [getattr(block.get_submodule("attention"), "shift", None) for block in blocks]
    assert shifts == [0, None, 2, None, 0]


def test_there_is_one_table_of_kinds() -> None:
    assert set(KINDS) == set(get_args(AttentionName))
