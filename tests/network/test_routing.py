"""Routed coarse matching: equal to the exact one where every block is listed, and linear."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matcher.config import CoarseConfig
from matcher.errors import UsageError
from matcher.network import coarse as coarse_module
from matcher.network import routing
from matcher.network.coarse import CoarseMatcher
from matcher.network.dual_softmax import Best, sparse_dual_softmax, stream_dual_softmax
from matcher.network.routing import CellTree, levels_for, route
from matcher.structures import CoarseMatches

ALL = 10**6


def routed(
    x0: Tensor,
    x1: Tensor,
    mask0: Tensor | None,
    mask1: Tensor | None,
    threshold: float = 0.0,
    levels: int = 2,
) -> Best:
    """Best partners of (h, w, C) maps with (h, w) masks, every block listed."""
    tree0, tree1 = CellTree.build(x0, mask0, levels), CellTree.build(x1, mask1, levels)
    return sparse_dual_softmax(tree0, tree1, *route(tree0, tree1, ALL, ALL), threshold)


def exact(x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None) -> Best:
    flat0, flat1 = (None if mask is None else mask.flatten() for mask in (mask0, mask1))
    return stream_dual_softmax(x0.flatten(0, 1), x1.flatten(0, 1), flat0, flat1)


@pytest.mark.parametrize("seed", range(100))
def test_routed_equals_exact_where_every_block_is_listed(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.Generator().manual_seed(seed)
    h0, w0, h1, w1, c = (int(torch.randint(1, n, (), generator=g)) for n in (14, 14, 14, 14, 9))
    if seed % 3 == 0:  # Several chunks of everything.
        monkeypatch.setattr(routing, "CHUNK_ELEMENTS", 50)
        monkeypatch.setattr("matcher.network.dual_softmax.CHUNK_PAIRS", 3)
    scale = [1.0, 3.0, 330.0][seed % 3]  # the last gives similarities of 1e5, beyond fp16
    x0 = torch.randn(h0, w0, c, generator=g) * scale
    x1 = torch.randn(h1, w1, c, generator=g) * scale
    if scale > 100:  # Whole numbers: their products are exact in any order.
        x0, x1 = x0.round(), x1.round()
    dtype = [torch.float32, torch.float16, torch.bfloat16][seed // 3 % 3]
    x0, x1 = x0.to(dtype).float(), x1.to(dtype).float()
    mask0 = torch.rand(h0, w0, generator=g) > 0.3 if seed % 2 else None
    share = 1.0 if seed % 10 == 1 else 0.3
    mask1 = torch.rand(h1, w1, generator=g) > share if seed % 5 else None
    found = routed(x0, x1, mask0, mask1, levels=2 + seed % 3)
    expected = exact(x0, x1, mask0, mask1)
    torch.testing.assert_close(found.score0, expected.score0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.score1, expected.score1, atol=1e-5, rtol=1e-5)
    clear = expected.score0 > 0.5  # The only one above a half of its row.
    assert torch.equal(found.index0[clear], expected.index0[clear])


def test_ties_go_to_the_lowest_raster_index() -> None:
    found = routed(torch.ones(6, 6, 4), torch.ones(6, 6, 4), None, None)
    assert found.index0.tolist() == [0] * 36
    assert found.index1.tolist() == [0] * 36


def test_a_map_that_is_all_masked_matches_nothing() -> None:
    x = torch.ones(6, 6, 4)
    found = routed(x, x, torch.zeros(6, 6, dtype=torch.bool), None)
    assert found.score0.tolist() == found.score1.tolist() == [0] * 36


def test_each_pair_of_blocks_is_compared_once_and_none_that_is_masked() -> None:
    g = torch.Generator().manual_seed(0)
    mask = torch.ones(16, 16, dtype=torch.bool)
    mask[:, 6:] = False
    x0, x1 = (torch.randn(16, 16, 8, generator=g) for _ in range(2))
    tree0, tree1 = CellTree.build(x0, None, 3), CellTree.build(x1, mask, 3)
    block0, block1 = route(tree0, tree1, 4, 2)
    pairs = block0 * 64 + block1
    assert torch.equal(pairs, pairs.unique())
    valid = tree1.valid[-2]
    assert valid is not None
    assert valid[block1].all()
    assert len(pairs) <= 2 * 64 * 4


def test_both_images_ask() -> None:
    """One block of image 1 is like all of image 0: every block of image 1 is compared still."""
    x0, x1 = torch.ones(8, 8, 4), torch.zeros(8, 8, 4)
    x1[:2, :2] = 1
    block0, block1 = route(CellTree.build(x0, None, 2), CellTree.build(x1, None, 2), blocks=1)
    assert set(block0.tolist()) == set(block1.tolist()) == set(range(16))


def test_the_top_level_stays_small_at_any_size() -> None:
    assert levels_for((60, 64)) == 2
    assert levels_for((60, 64), (128, 128)) == 3
    assert levels_for((270, 480)) == 5
    h, w = (-(-side // 2**4) for side in (270, 480))
    assert h * w <= routing.TOP_BLOCKS


def test_cells_are_found_in_their_blocks() -> None:
    tree = CellTree.build(torch.zeros(3, 5, 1), None, 2)
    # Blocks of two rows and two columns: three in the first row of blocks, three in the second.
    assert tree.block_of(torch.arange(15)).tolist() == [0, 0, 1, 1, 2, 0, 0, 1, 1, 2, 3, 3, 4, 4, 5]


def textured(h: int, w: int, seed: int = 0) -> Tensor:
    """(1, C, h, w) features that change from block to block and a little inside of it."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 32, -(-h // 4), -(-w // 4), generator=g).repeat_interleave(4, 2)
    return (coarse.repeat_interleave(4, 3)[..., :h, :w] + torch.randn(1, 32, h, w, generator=g)) * 4


def scores_of(matches: CoarseMatches) -> dict[tuple[int, ...], float]:
    """Score of each match, by its pair of the batch and its cells."""
    cells = torch.stack(matches[:3], dim=1).tolist()
    return dict(zip(map(tuple, cells), matches.score.tolist(), strict=True))


def test_the_head_finds_nearly_the_same_matches_routed_in_batches_of_two_sizes() -> None:
    a, b = textured(40, 56), textured(40, 56, seed=1)
    x0 = torch.cat([a, b])
    x1 = torch.cat([a.roll(8, 3), b.roll(4, 2)])[:, :, :36] + 0.5
    mask = torch.ones(2, 40, 56, dtype=torch.bool)
    mask[1, 30:] = False
    expected = CoarseMatcher(CoarseConfig(routing="exact")).match(x0, x1, mask, None)
    found = CoarseMatcher(CoarseConfig(routing="routed")).match(x0, x1, mask, None)
    ours, theirs = scores_of(found), scores_of(expected)
    assert len(theirs) > 1000
    common = ours.keys() & theirs.keys()
    assert len(common) > 0.99 * max(len(ours), len(theirs))
    # A sum over fewer partners is smaller, so that no confidence is, but for the rounding of
    # similarities in the hundreds.
    gains = torch.tensor([ours[cells] - theirs[cells] for cells in common])
    assert gains.min() > -1e-3
    assert gains.median() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_are_scored_in_fp32(dtype: torch.dtype) -> None:
    x = (textured(16, 16) * 8).to(dtype)
    head = CoarseMatcher(CoarseConfig(routing="routed", border=0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head.match(x, x)
    assert len(found.score) > 200
    for one, other in zip(found, head.match(x.float(), x.float()), strict=True):
        assert torch.equal(one, other)


def test_auto_routes_from_the_measured_number_of_pairs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    head = CoarseMatcher(CoarseConfig(routing="auto"))
    calls = []
    monkeypatch.setattr(coarse_module, "route", lambda *trees: calls.append(trees) or route(*trees))
    x = textured(16, 16)
    monkeypatch.setattr(coarse_module, "ROUTED_PAIRS", 256 * 256 + 1)
    head.match(x, x)
    assert not calls
    monkeypatch.setattr(coarse_module, "ROUTED_PAIRS", 256 * 256)
    head.match(x, x)
    assert len(calls) == 1
    CoarseMatcher(CoarseConfig(routing="exact")).match(x, x)
    CoarseMatcher(CoarseConfig(routing="auto", match_type="sinkhorn")).match(x, x)
    assert len(calls) == 1


def test_sinkhorn_is_not_routed() -> None:
    with pytest.raises(UsageError, match=r"coarse\.routing: got 'routed'"):
        CoarseConfig(routing="routed", match_type="sinkhorn")
