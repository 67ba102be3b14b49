"""Matching of coarse cells: streamed against full, ties, masks, border, Sinkhorn, memory."""

import math
import resource
import subprocess
import sys

import pytest
import torch

from matcher.config import CoarseConfig
from matcher.network import dual_softmax
from matcher.network.coarse import CoarseMatcher, inside_border
from matcher.network.dual_softmax import stream_dual_softmax
from matcher.network.sinkhorn import sinkhorn


def full_dual_softmax(x0, x1, mask0, mask1):
    """Confidence of the fp32 similarities in fp64, without streaming."""
    s = (x0.float() @ x1.float().T).double()
    if mask0 is not None:
        s[~mask0] = -torch.inf
    if mask1 is not None:
        s[:, ~mask1] = -torch.inf
    return (s.softmax(0) * s.softmax(1)).nan_to_num()


@pytest.mark.parametrize("seed", range(200))
def test_streamed_equals_full(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(seed)
    rows, columns, c = (int(torch.randint(1, n, (), generator=g)) for n in (60, 60, 9))
    block = int(torch.randint(1, 4 * columns + 1, (), generator=g))
    monkeypatch.setattr(dual_softmax, "BLOCK_ELEMENTS", block)
    monkeypatch.setattr(dual_softmax, "LEAST_ROWS", 1)
    scale = [1.0, 5.0, 330.0][seed % 3]  # the last gives similarities of 1e5
    dtype = [torch.float32, torch.float16, torch.bfloat16][seed // 3 % 3]
    x0, x1 = (torch.randn(n, c, generator=g) * scale for n in (rows, columns))
    if scale > 100:  # Whole numbers: their products are exact in any order.
        x0, x1 = x0.round(), x1.round()
    x0, x1 = x0.to(dtype), x1.to(dtype)
    if seed % 4 == 0:
        x0, x1 = (
            x0[torch.randint(0, rows, (rows,), generator=g)],
            x1[torch.randint(0, columns, (columns,), generator=g)],
        )
    mask0 = torch.rand(rows, generator=g) > 0.3 if seed % 2 else None
    share = 1.0 if seed % 10 == 1 else 0.3
    mask1 = torch.rand(columns, generator=g) > share if seed % 5 else None
    best = stream_dual_softmax(x0, x1, mask0, mask1)
    full = full_dual_softmax(x0, x1, mask0, mask1)
    for score, index, matrix in (
        (best.score0, best.index0, full),
        (best.score1, best.index1, full.T),
    ):
        assert torch.isfinite(score).all()
        top = matrix.max(dim=1).values
        torch.testing.assert_close(score.double(), top, atol=1e-4, rtol=1e-3)
        chosen = matrix[torch.arange(len(index)), index]
        torch.testing.assert_close(chosen, top, atol=1e-4, rtol=1e-3)
    pairs = {(i, int(best.index0[i])) for i in range(rows) if best.index1[best.index0[i]] == i}
    assert len({j for _, j in pairs}) == len(pairs)


@pytest.mark.parametrize("seed", range(30))
def test_what_cannot_exceed_the_threshold_is_left_out_and_changes_nothing(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    x0, x1 = (torch.randn(1, 6, 9, 11, generator=g) * [1, 3, 9][seed % 3] for _ in range(2))
    mask0 = torch.rand(1, 9, 11, generator=g) > 0.3 if seed % 2 else None
    threshold = [0.02, 0.2, 0.7, 1.0][seed % 4]
    head = CoarseMatcher(CoarseConfig(border=0))
    every = head.match(x0, x1, mask0, None, 0.0)
    above = every.score > threshold
    for found, expected in zip(head.match(x0, x1, mask0, None, threshold), every, strict=True):
        torch.testing.assert_close(found, expected[above])


@pytest.mark.parametrize("seed", range(24))
def test_one_pass_finds_what_the_full_matrix_holds(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = torch.Generator().manual_seed(seed)
    rows, columns = (int(torch.randint(200, 900, (), generator=g)) for _ in range(2))
    monkeypatch.setattr(dual_softmax, "BLOCK_ELEMENTS", 70 * columns)
    threshold = [0.05, 0.2, 0.6][seed % 3]
    scale = [1.5, 2.5, 9.0][seed // 3 % 3]  # the last has sums too far apart for one pass
    x0 = torch.randn(rows, 16, generator=g)
    x1 = x0[torch.randint(0, rows, (columns,), generator=g)]
    x0, x1 = x0 * scale, (x1 + 0.2 * torch.randn(columns, 16, generator=g)) * scale
    mask0 = torch.rand(rows, generator=g) > 0.3 if seed % 2 else None
    mask1 = torch.rand(columns, generator=g) > 0.3 if seed % 5 else None
    best = stream_dual_softmax(x0, x1, mask0, mask1, threshold)
    full = full_dual_softmax(x0, x1, mask0, mask1)
    sides = (best.score0, best.index0, full), (best.score1, best.index1, full.T)
    for score, index, matrix in sides:
        top, where = matrix.max(dim=1)
        above = top > threshold + 1e-4
        assert above.any()
        torch.testing.assert_close(score[above].double(), top[above], atol=1e-4, rtol=0)
        assert torch.equal(index[above], where[above])
        assert (score[top < threshold - 1e-4] <= threshold).all()


def test_one_pass_is_taken_where_it_can_be_and_not_where_it_cannot() -> None:
    x = torch.randn(50, 16, generator=torch.Generator().manual_seed(0))
    found = dual_softmax._candidates(x, x, 0.2)
    assert found is not None
    assert len(found.score) < 250
    assert dual_softmax._candidates(x * 30, x * 30, 0.2) is None


def test_ties_go_to_the_lowest_index_and_stay_one_to_one() -> None:
    x = torch.ones(6, 4)
    best = stream_dual_softmax(x, x, None, None)
    assert best.index0.tolist() == [0] * 6
    assert best.index1.tolist() == [0] * 6


def features(h: int, w: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 32, h, w, generator=torch.Generator().manual_seed(seed)) * 6


def test_identical_maps_match_cell_by_cell_inside_the_border() -> None:
    x = features(8, 10)
    matches = CoarseMatcher(CoarseConfig(border=2)).match(x, x)
    expected = [r * 10 + c for r in range(2, 6) for c in range(2, 8)]
    assert matches.index0.tolist() == matches.index1.tolist() == expected
    assert (matches.score > 0.9).all()


def test_masked_cells_never_match_and_the_border_follows_the_mask() -> None:
    x = features(8, 10)
    mask = torch.zeros(1, 8, 10, dtype=torch.bool)
    mask[:, :5, :6] = True
    matches = CoarseMatcher(CoarseConfig(border=1)).match(x, x, mask, mask)
    assert matches.index0.tolist() == [r * 10 + c for r in range(1, 4) for c in range(1, 5)]
    none = CoarseMatcher(CoarseConfig()).match(x, x, torch.zeros_like(mask), mask)
    assert none.index0.shape == (0,)


def test_threshold_one_keeps_nothing() -> None:
    x = features(8, 8)
    assert len(CoarseMatcher(CoarseConfig(threshold=1.0)).match(x, x).score) == 0


def test_log_confidence_is_the_log_of_what_inference_scores() -> None:
    head = CoarseMatcher(CoarseConfig(border=0, threshold=0.0))
    x0, x1 = features(6, 6), features(6, 8, seed=1)
    log_confidence = head.log_confidence(x0, x1, None, None)
    matches = head.match(x0, x1)
    chosen = log_confidence[0, matches.index0, matches.index1].exp()
    torch.testing.assert_close(chosen, matches.score, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("match_type", ["dual_softmax", "sinkhorn"])
def test_masked_log_confidence_is_minus_infinity(match_type: str) -> None:
    head = CoarseMatcher(CoarseConfig(match_type=match_type))
    x = features(4, 4)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[:, 0, 0] = False
    log_confidence = head.log_confidence(x, x, mask, None)
    assert (log_confidence[:, 0] == -math.inf).all()
    assert torch.isfinite(log_confidence[:, 1:]).all()


def test_sinkhorn_rows_and_columns_sum_to_their_mass() -> None:
    s = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    p = sinkhorn(s, torch.tensor(1.0), 200, None).exp()
    torch.testing.assert_close(p[:, :-1].sum(2), torch.ones(2, 5), atol=1e-3, rtol=0)
    torch.testing.assert_close(p[:, :, :-1].sum(1), torch.ones(2, 7), atol=1e-3, rtol=0)


def test_sinkhorn_matches_identical_maps() -> None:
    x = features(6, 6)
    head = CoarseMatcher(CoarseConfig(match_type="sinkhorn", border=0, prefilter=True))
    matches = head.match(x, x)
    assert matches.index0.tolist() == matches.index1.tolist() == list(range(36))


def test_sinkhorn_states_its_memory_before_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    head = CoarseMatcher(CoarseConfig(match_type="sinkhorn", sinkhorn_iterations=1))
    x = torch.zeros(1, 4, 100, 100)
    head.match(x, x)
    assert "10000 x 10000 scores: about 1.1 GB" in caplog.text


def test_border_wider_than_the_map_leaves_nothing() -> None:
    assert not inside_border((3, 3), None, 2, torch.device("cpu")).any()


STREAM = """
import resource, sys, torch
from matcher.network.coarse import CoarseMatcher
from matcher.config import CoarseConfig
torch.set_num_threads(2)
h, w = int(sys.argv[1]), int(sys.argv[2])
x = torch.randn(1, 64, h, w)
head = CoarseMatcher(CoarseConfig())
head.match(x[:, :, :16, :16], x[:, :, :16, :16])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
head.match(x, x)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def streamed_memory(h: int, w: int) -> float:
    """MB by which the peak memory grows while matching two h x w maps."""
    command = [sys.executable, "-c", STREAM, str(h), str(w)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("height", "width", "most"),
    [
        pytest.param(75, 100, 100, id="800x600"),
        pytest.param(150, 200, 400, id="1600x1200", marks=pytest.mark.slow),
        pytest.param(270, 480, 2000, id="3840x2160", marks=pytest.mark.slow),
    ],
)
def test_a_large_pair_needs_little_memory(height: int, width: int, most: float) -> None:
    """All similarities of the smallest pair would take 225 MB, of the next 3.6 GB."""
    assert resource.getpagesize() > 0
    assert streamed_memory(height, width) <= most
