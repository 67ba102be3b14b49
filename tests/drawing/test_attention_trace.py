"""What attention looks at, and the confidence of one cell."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from matcher.attention.record import ACTIVE
from matcher.config import (
    BackboneConfig,
    CoarseConfig,
    FineConfig,
    MatcherConfig,
    TransformerConfig,
)
from matcher.drawing import attention, attention_trace
from matcher.drawing.attention import (
    animate_descent,
    draw_attention,
    draw_blocks,
    draw_heads,
    draw_point,
    write_animation,
)
from matcher.drawing.attention_trace import (
    AttentionTrace,
    Blocks,
    block_boxes,
    confidence_row,
    raster_of_quad,
    trace_attention,
)
from matcher.errors import UsageError
from matcher.images.load import load_image
from matcher.images.preprocess import prepare
from matcher.network.coarse import CoarseMatcher
from matcher.network.model import build_matcher
from matcher.predictor import Predictor

IMAGES = [np.random.default_rng(i).integers(0, 256, (90, 125), dtype=np.uint8) for i in (0, 1)]
POINT = (70.0, 41.0)


def tiny(**transformer: object) -> MatcherConfig:
    values: dict = {"layers": ("self", "cross"), "heads": 2, "topks": (5, 3, 2), "mlp_ratio": 1}
    return MatcherConfig(
        backbone=BackboneConfig(
            initial_dim=8, block_dims=(8, 8, 16), depths=(1, 1, 1), pyramid="lean"
        ),
        transformer=TransformerConfig(**values | transformer),
        fine=FineConfig(layers=(), heads=1),
    )


def traced(**transformer: object) -> AttentionTrace:
    torch.manual_seed(0)
    model = build_matcher(tiny(**transformer))
    # Random weights of a deep network make flat attention; larger queries make it choose.
    for block in model.transformer.blocks:
        block.get_submodule("query").weight.data *= 20
    return trace_attention(Predictor(model, device="cpu"), *IMAGES)


@pytest.fixture(scope="module")
def trace() -> AttentionTrace:
    return traced()


def test_quad_order_of_a_map_of_two_by_four_is_two_blocks() -> None:
    assert raster_of_quad((2, 4), 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]


def test_quad_order_of_three_levels_is_nested() -> None:
    expected = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert raster_of_quad((4, 4), 3).tolist() == expected


def test_one_level_keeps_the_raster_order() -> None:
    assert raster_of_quad((2, 3), 1).tolist() == list(range(6))


def test_a_cell_is_centerd_on_its_pixel_and_cut_off_at_the_edges() -> None:
    seen = prepare(load_image(np.zeros((40, 60), np.uint8)), None, tiny(), None)
    boxes = block_boxes(seen, 1, 8, torch.tensor([0, 1, 8 + 7]))
    assert boxes.tolist() == [[-0.5, -0.5, 4, 4], [4, -0.5, 12, 4], [52, 4, 59.5, 12]]


def test_blocks_of_a_shrunk_image_are_in_original_pixels() -> None:
    seen = prepare(load_image(np.zeros((128, 256), np.uint8)), None, tiny(), 128)
    # Network pixels 12 to 28 at half the size: (12 + 0.5) 2 - 0.5 = 24.5 to 56.5.
    assert block_boxes(seen, 2, 8, torch.tensor([9])).tolist() == [[24.5, 24.5, 56.5, 56.5]]


def test_the_cell_of_a_point_is_the_nearest_valid_one(trace: AttentionTrace) -> None:
    columns = trace.pair.input0.valid.shape[1]
    assert trace.cell((70, 41)) == 5 * columns + 9
    # The image ends at x = 124, before the cell at 128.
    assert trace.cell((1000, 0)) == 15


@pytest.mark.parametrize("head", [None, 1])
@pytest.mark.parametrize("layer", [0, 1])
def test_scores_of_every_level_sum_to_one(
    trace: AttentionTrace, layer: int, head: int | None
) -> None:
    for blocks in trace.quadtree(POINT, layer, head):
        assert blocks.scores.sum() == pytest.approx(1, abs=1e-5)
        assert (np.diff(blocks.scores) <= 0).all()


def test_a_head_opens_as_many_blocks_as_its_level_keeps(trace: AttentionTrace) -> None:
    levels = trace.quadtree(POINT, -1, 0)
    assert [int(level.opened.sum()) for level in levels] == [5, 3, 0]
    assert set(levels[0].scores[:5]) == set(levels[0].scores[levels[0].opened])


def test_the_blocks_of_a_level_tile_those_that_were_opened_above(trace: AttentionTrace) -> None:
    levels = trace.quadtree(POINT, -1)
    for above, below in pairwise(levels):
        opened = above.boxes[above.opened]
        inside = (below.boxes[:, None, :2] >= opened[:, :2]) & (
            below.boxes[:, None, 2:] <= opened[:, 2:]
        )
        assert inside.all(axis=2).any(axis=1).all()
        areas = [np.prod(b[:, 2:] - b[:, :2], axis=1).sum() for b in (opened, below.boxes)]
        assert areas[0] == pytest.approx(areas[1])


def test_united_heads_are_the_mean_of_the_heads(trace: AttentionTrace) -> None:
    def by_box(blocks: Blocks) -> dict[tuple, float]:
        return {tuple(b): float(s) for b, s in zip(blocks.boxes, blocks.scores, strict=True)}

    for number, united in enumerate(trace.quadtree(POINT, 1)):
        heads = [by_box(trace.quadtree(POINT, 1, head)[number]) for head in (0, 1)]
        for box, score in by_box(united).items():
            mean = sum(head.get(box, 0.0) for head in heads) / 2
            assert score == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("attention", ["quadtree A", "quadtree B", "full", "linear"])
def test_the_weights_reproduce_the_message_of_the_operator(attention: str, layer: int) -> None:
    kind, _, variant = attention.partition(" ")
    trace = traced(attention=kind, variant=variant or "B")
    seen = trace.pair[trace.target(layer)]
    height, width = seen.valid.shape
    columns0 = trace.pair.input0.valid.shape[1]
    record = trace.layer(layer)

    def as_map(tokens: torch.Tensor, columns: int) -> torch.Tensor:
        return tokens.transpose(1, 2).flatten(0, 1).unflatten(1, (-1, columns))[None]

    value = torch.randn(1, 16, height, width)
    operator = trace.model.transformer.blocks[layer].get_submodule("attention")
    with torch.no_grad():
        message = operator(
            as_map(record.query, columns0),
            as_map(record.key, width),
            value,
            trace.pair.input0.valid[None],
            seen.valid[None],
        )
    row, column = divmod(trace.cell(POINT), columns0)
    for head in (0, 1):
        blocks = getattr(trace, {"quadtree": "merged"}.get(kind, kind))(POINT, layer, head)
        centers = np.rint((blocks.boxes[:, :2] + 4) / 8).astype(int)
        weights = torch.zeros(height, width)
        weights[centers[:, 1], centers[:, 0]] = torch.from_numpy(blocks.scores)
        expected = message[0, 8 * head : 8 * head + 8, row, column]
        found = (value[0, 8 * head : 8 * head + 8] * weights).sum(dim=(1, 2))
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-3)


def test_attention_without_levels_says_so() -> None:
    with pytest.raises(UsageError, match="linear attention"):
        traced(attention="linear").quadtree(POINT, 0)


def test_attention_to_blocks_of_cells_says_so() -> None:
    with pytest.raises(UsageError, match=r"E201 layer: .*that of pvt is to blocks"):
        traced(attention="pvt").full(POINT, 0)


@pytest.mark.parametrize(("layer", "head"), [(2, 0), (-3, 0), (0, 2), (0, -1)])
def test_a_layer_or_head_that_is_not_there_is_refused(
    trace: AttentionTrace, layer: int, head: int
) -> None:
    with pytest.raises(UsageError):
        trace.quadtree(POINT, layer, head)


def test_tracing_leaves_no_recorder_behind(trace: AttentionTrace) -> None:
    assert trace.layers
    assert ACTIVE.get() is None


@pytest.mark.parametrize("match_type", ["dual_softmax", "sinkhorn"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_row_of_confidence_equals_that_of_the_matrix(
    match_type: str, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_trace, "BLOCK_ELEMENTS", 60)
    torch.manual_seed(1)
    head = CoarseMatcher(CoarseConfig(match_type=match_type))
    coarse0, coarse1 = 3 * torch.randn(1, 16, 3, 5), 3 * torch.randn(1, 16, 4, 6)
    mask0 = torch.ones(1, 3, 5, dtype=torch.bool)
    mask1 = torch.ones(1, 4, 6, dtype=torch.bool)
    if masked:
        mask0[:, 2], mask1[:, :, 5] = False, False
    masks = (mask0, mask1) if masked else (None, None)
    matrix = head.log_confidence(coarse0, coarse1, *masks).exp()[0]
    for cell in (0, 7, 14):
        row = confidence_row(head, coarse0, coarse1, cell, mask0, mask1)
        torch.testing.assert_close(row.flatten(), matrix[cell])


def test_the_confidence_of_a_point_lies_over_image_1(trace: AttentionTrace) -> None:
    cells = [each.valid[None] for each in trace.pair]
    matrix = trace.model.coarse.log_confidence(trace.coarse0, trace.coarse1, *cells).exp()[0]
    row, column = divmod(int(matrix[trace.cell(POINT)].argmax()), cells[1].shape[-1])
    best = trace.confidence(POINT)
    assert best.scores[0] == pytest.approx(float(matrix[trace.cell(POINT)].max()), rel=1e-4)
    x0, y0, x1, y1 = best.boxes[0]
    assert x0 <= 8 * column <= x1
    assert y0 <= 8 * row <= y1


def test_heavy_blocks_are_yellow_and_opened_ones_outlined() -> None:
    image = np.full((40, 80, 3), 128, np.uint8)
    boxes = np.array([[-0.5, -0.5, 39.5, 39.5], [39.5, -0.5, 79.5, 19.5]])
    blocks = Blocks(boxes, np.array([1.0, 0.01], np.float32), np.array([False, True]))
    picture = draw_blocks(image, blocks, width=160)
    assert picture.shape == (80, 160, 3)
    red, _, blue = picture[40, 40].astype(int)
    assert red - blue > 100
    assert len(np.unique(picture[60, 100])) == 1
    red, _, blue = picture[0, 120].astype(int)
    assert red - blue > 100
    assert picture[20, 120, 2] > picture[20, 120, 0]


def test_a_ring_lies_around_the_point_and_leaves_the_rest_alone() -> None:
    image = np.full((60, 120, 3), 128, np.uint8)
    picture = draw_point(image, (89.5, 14.5), width=480)
    rows, columns = np.nonzero((picture != 128).any(axis=2))
    assert rows.mean() == pytest.approx(4 * 15 - 0.5, abs=1)
    assert columns.mean() == pytest.approx(4 * 90 - 0.5, abs=1)
    assert np.ptp(rows) == np.ptp(columns) < 40


def test_pictures_show_every_level_and_head(trace: AttentionTrace) -> None:
    four = draw_attention(*IMAGES, trace, POINT, width=160)
    assert four.shape[1] == 4 * (160 + 8)
    heads = draw_heads(*IMAGES, trace, POINT, width=100)
    assert heads.shape[1] == 2 * (100 + 8)
    assert four.dtype == heads.dtype == np.uint8


def test_a_weight_has_the_same_color_in_every_panel_of_a_picture(
    trace: AttentionTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[float, float]] = []

    def spy(image: np.ndarray, blocks: Blocks, *, width: int, most: float) -> np.ndarray:
        shown.append((float(blocks.scores.max()), most))
        return draw_blocks(image, blocks, width=width, most=most)

    monkeypatch.setattr(attention, "draw_blocks", spy)
    draw_attention(*IMAGES, trace, POINT, width=160)
    *weights, (_, of_confidence) = shown
    peaks, scales = zip(*weights, strict=True)
    assert len(peaks) == 3 + 3
    assert {*scales} == {max(peaks)}
    assert of_confidence == 1
    for draw in (draw_heads, animate_descent):
        shown.clear()
        draw(*IMAGES, trace, POINT, width=100)
        peaks, scales = zip(*shown, strict=True)
        assert {*scales} == {max(peaks)}


def test_weights_of_half_the_scale_are_drawn_alike_beside_any_others() -> None:
    image = np.full((40, 80, 3), 128, np.uint8)
    boxes = np.array([[-0.5, -0.5, 39.5, 39.5], [39.5, -0.5, 79.5, 39.5]])
    closed = np.zeros(2, bool)
    beside = [
        draw_blocks(image, Blocks(boxes, np.array([0.5, x], np.float32), closed), most=1.0)
        for x in (0.1, 1.0)
    ]
    assert (beside[0][:, :300] == beside[1][:, :300]).all()
    assert (beside[0][:, 420:] != beside[1][:, 420:]).any()


def test_the_animation_goes_down_the_pyramid(trace: AttentionTrace, tmp_path: Path) -> None:
    frames = animate_descent(*IMAGES, trace, POINT, width=160)
    assert len(frames) == 1 + 2 + 2 + 1 + 1
    write_animation(tmp_path / "descent.gif", frames)
    with Image.open(tmp_path / "descent.gif") as image:
        assert image.n_frames == len(frames)
        assert image.size == frames[0].shape[1::-1]
    with pytest.raises(UsageError, match="gif"):
        write_animation(tmp_path / "descent.png", frames)


def test_added_levels_are_refused_as_pictures_know_the_trained_ones() -> None:
    predictor = Predictor(build_matcher(tiny(coarsest_cells=4)).eval(), device="cpu")
    with pytest.raises(UsageError, match="E201 coarsest_cells: got 4; expected 0"):
        trace_attention(predictor, *IMAGES)
