"""Properties of QuadTree attention: exact where dense, masks, sizes, dtypes, gradients."""

import pytest
import torch
from torch import Tensor

from matcher.attention.dense import DenseAttention, FullAttention, LinearAttention
from matcher.attention.pyramid import build_pyramids, from_quad, merge_levels, pool_tokens, to_quad
from matcher.attention.quadtree import QuadTreeAttention, extra_levels
from matcher.attention.reference import Variant


def maps(*sizes: tuple[int, int], batch: int = 2, channels: int = 8, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, h, w, generator=generator) for h, w in sizes]


def dense_oracle(
    q: Tensor, k: Tensor, v: Tensor, attention: QuadTreeAttention, mask: Tensor | None = None
) -> Tensor:
    """What the attention must be when every block is selected, written with loops."""
    levels, heads = len(attention.topks), attention.heads
    size = q.shape[-2], q.shape[-1]
    pyramids = build_pyramids(q, k, v, None, mask, levels, heads)
    messages, parent = [], None
    for level, (ql, kl, vl, keep) in enumerate(zip(*pyramids, strict=True)):
        scores = ql @ kl.transpose(2, 3) / ql.shape[-1] ** 0.5
        if keep is not None:
            scores = scores.masked_fill(~keep[:, None, None, :], -torch.inf)
        if attention.variant == "A" and parent is not None:
            groups = scores.unflatten(3, (-1, 4)).softmax(-1).nan_to_num()
            above = parent.repeat_interleave(4, dim=2)
            parent = (groups * above[..., None]).flatten(3)
        else:
            parent = scores.softmax(-1).nan_to_num()
        last_level = level == levels - 1
        dense = parent @ vl if attention.variant == "B" or last_level else torch.zeros_like(ql)
        messages.append(dense)
    weights = None if attention.level_weights is None else attention.level_weights.softmax(0)
    return merge_levels(messages, weights, levels, size)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_quad_order_puts_children_together_and_comes_back(levels: int) -> None:
    (x,) = maps((16, 24))
    tokens = to_quad(x, levels, 2)
    assert torch.equal(from_quad(tokens, levels, (16, 24)), x)
    if levels > 1:
        pooled = torch.nn.functional.avg_pool2d(x, 2)
        expected = to_quad(pooled, levels - 1, 2)
        torch.testing.assert_close(pool_tokens(tokens, None), expected)


def test_a_map_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="6x8 is not divisible by 4"):
        to_quad(torch.zeros(1, 4, 6, 8), 3, 1)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("masked", [False, True])
def test_with_every_block_selected_it_equals_dense_attention(
    variant: Variant, levels: int, masked: bool
) -> None:
    q, k, v = maps((8, 12), (16, 8), (16, 8))
    attention = QuadTreeAttention(2, [999] * levels, variant)
    if attention.level_weights is not None:
        torch.nn.init.normal_(attention.level_weights)
    mask = None
    if masked:
        mask = torch.ones(2, 16, 8, dtype=torch.bool)
        mask[0, 10:], mask[1, :, 3:] = False, False
    message = attention(q, k, v, None, mask)
    assert (message - dense_oracle(q, k, v, attention, mask)).abs().max() <= 1e-5


@pytest.mark.parametrize("variant", ["A", "B"])
def test_gradients_are_exact(variant: Variant) -> None:
    q, k, v = (x.double().requires_grad_() for x in maps((4, 4), (4, 8), (4, 8), batch=1))
    attention = QuadTreeAttention(2, [1, 2, 2], variant).double()
    assert torch.autograd.gradcheck(lambda *x: attention(*x), (q, k, v), fast_mode=False)


@pytest.mark.parametrize("variant", ["A", "B"])
def test_masked_tokens_have_exactly_no_influence(variant: Variant) -> None:
    x, junk = maps((16, 16), (16, 16))
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, :9, :11], mask[1, :16, :5] = True, True
    attention = QuadTreeAttention(2, [3, 2, 2], variant)
    spoilt = torch.where(mask[:, None], x, junk * 100)
    clean = attention(x, x, x, mask, mask)
    dirty = attention(spoilt, spoilt, spoilt, mask, mask)
    assert torch.equal(*(y.permute(0, 2, 3, 1)[mask] for y in (clean, dirty)))


@pytest.mark.parametrize("variant", ["A", "B"])
def test_a_query_without_any_valid_key_gets_zero(variant: Variant) -> None:
    q, k = maps((8, 8), (8, 8))
    mask = torch.zeros(2, 8, 8, dtype=torch.bool)
    mask[1] = True
    message = QuadTreeAttention(2, [4, 4, 4], variant)(q, k, k, None, mask)
    assert torch.equal(message[0], torch.zeros_like(message[0]))
    assert message[1].abs().max() > 0


@pytest.mark.parametrize("variant", ["A", "B"])
def test_fewer_tokens_than_k_are_all_used(variant: Variant) -> None:
    q, k = maps((4, 4), (4, 4))
    few, many = (QuadTreeAttention(2, [n, n, n], variant) for n in (4, 64))
    many.load_state_dict(few.state_dict())
    small = few(q[:, :, :4], k, k)
    assert small.shape == q.shape
    assert torch.isfinite(many(q, k, k)).all()


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_to_fp32(variant: Variant, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in maps((8, 8), (8, 8), (8, 8)))
    attention = QuadTreeAttention(2, [99, 99, 99], variant)
    expected = attention(q.float(), k.float(), v.float())
    with torch.no_grad():
        message = attention.to(dtype)(q, k, v)
    assert message.dtype == dtype
    assert (message.float() - expected).abs().max() <= 2e-2


def test_levels_list_the_keys_and_their_probabilities() -> None:
    q, k = maps((8, 8), (8, 8))
    levels = QuadTreeAttention(2, [2, 3, 1], "B").levels(q, k, k)
    shapes = [(2, 2, 4, 4), (2, 2, 16, 8), (2, 2, 64, 12)]
    assert [tuple(level.keys.shape) for level in levels] == shapes
    for level in levels:
        torch.testing.assert_close(level.scores.sum(-1), torch.ones_like(level.scores[..., 0]))
    parents = levels[2].keys[..., ::4] // 4
    candidates = levels[1].keys.repeat_interleave(4, dim=2)
    assert (parents[..., None] == candidates[..., None, :]).any(-1).all()


@pytest.mark.parametrize("kind", [LinearAttention, FullAttention])
def test_dense_attention_ignores_masked_tokens(kind: type[DenseAttention]) -> None:
    q, k, junk = maps((4, 6), (8, 4), (8, 4))
    mask = torch.ones(2, 8, 4, dtype=torch.bool)
    mask[:, 5:] = False
    spoilt = torch.where(mask[:, None], k, junk * 10)
    attention = kind(2)
    assert torch.equal(attention(q, k, k, None, mask), attention(q, spoilt, spoilt, None, mask))


def test_full_attention_is_a_softmax_over_all_keys() -> None:
    q, k, v = maps((2, 3), (3, 2), (3, 2), channels=4)
    tokens = [x.flatten(2).transpose(1, 2) for x in (q, k, v)]
    p = (tokens[0] @ tokens[1].transpose(1, 2) / 2).softmax(-1)
    expected = (p @ tokens[2]).transpose(1, 2).view_as(q)
    torch.testing.assert_close(FullAttention(1)(q, k, v), expected)


def test_levels_are_added_until_the_coarsest_is_small_enough():
    assert extra_levels((60, 80), 3, 0) == 0
    assert extra_levels((60, 80), 3, 300) == 0
    assert extra_levels((60, 80), 3, 299) == 1
    assert extra_levels((256, 256), 3, 1200) == 1
    assert extra_levels((252, 252), 3, 1) == 6


def test_added_levels_that_keep_every_key_change_nothing():
    attention = QuadTreeAttention(2, (999, 999, 8))
    with torch.no_grad():
        attention.level_weights.copy_(torch.tensor([0.3, -1.0, 0.5]))  # pyright: ignore
    fixed = attention(*maps(*[(16, 24)] * 3, channels=16))
    attention.coarsest_cells = 4
    torch.testing.assert_close(
        attention(*maps(*[(16, 24)] * 3, channels=16)), fixed, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("variant", ["A", "B"])
def test_maps_that_added_levels_do_not_divide_are_padded_without_influence(variant: Variant):
    attention = QuadTreeAttention(2, (3, 2, 2), variant, coarsest_cells=4)
    query, key, value = maps(*[(20, 12)] * 3, batch=1, channels=16)
    out = attention(query, key, value)
    assert out.shape == query.shape
    valid = torch.ones(1, 32, 16, dtype=torch.bool)
    valid[:, 20:] = valid[:, :, 12:] = False
    noise = [torch.randn(1, 16, 32, 16) for _ in range(3)]
    for padded, x in zip(noise, (query, key, value), strict=True):
        padded[..., :20, :12] = x
    again = attention(*noise, valid, valid)[..., :20, :12]
    torch.testing.assert_close(again, out, atol=1e-5, rtol=0)
