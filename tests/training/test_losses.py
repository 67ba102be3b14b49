"""Terms of the training loss on values that can be computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from matcher.attention.quadtree import QuadTreeAttention
from matcher.attention.record import AttentionCall
from matcher.config import CoarseConfig
from matcher.network.coarse import CoarseMatcher
from matcher.network.fine import expectation
from matcher.training.loss.dual_softmax import true_log_confidence
from matcher.training.loss.levels import call_loss, level_loss, opening_loss, true_blocks
from matcher.training.loss.total import (
    drawn,
    fine_loss,
    focal_loss,
    found,
    heatmap_loss,
    positives_loss,
)
from matcher.training.supervision import CoarseTargets, FineTargets


def cells(*matches: tuple[int, int, int], size: tuple[int, int] = (2, 2)) -> CoarseTargets:
    columns = torch.tensor(matches, dtype=torch.int64).view(-1, 3)
    return CoarseTargets(columns[:, 0], columns[:, 1], columns[:, 2], size, size)


def test_positives_loss_is_the_mean_negative_log_confidence():
    confidence = torch.full((1, 4, 4), 0.1)
    confidence[0, 0, 1], confidence[0, 2, 3] = 0.5, 0.25
    loss = positives_loss(confidence.log()[0, [0, 2], [1, 3]])
    assert loss.item() == pytest.approx(-(math.log(0.5) + math.log(0.25)) / 2)


def test_focal_loss_equals_the_published_formula():
    confidence = torch.full((1, 2, 2), 0.2)
    confidence[0, 0, 0] = 0.9
    loss = focal_loss(confidence.log(), cells((0, 0, 0)), alpha=0.25, gamma=2.0)
    hit = -0.25 * 0.1**2 * math.log(0.9)
    miss = -0.25 * 0.2**2 * math.log(0.8)
    assert loss.item() == pytest.approx(hit + miss, rel=1e-4)


def test_masked_cells_are_no_negatives():
    confidence = torch.full((1, 2, 2), 0.2).log()
    confidence[0, 1, 1] = -math.inf
    loss = focal_loss(confidence.requires_grad_(), cells((0, 0, 0)))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(confidence.grad).all()


@pytest.mark.parametrize("loss", [lambda x, _: positives_loss(x[:0, 0, 0]), focal_loss])
def test_without_true_matches_the_coarse_loss_is_finite(loss):
    confidence = torch.full((1, 4, 4), 0.1).log().requires_grad_()
    value = loss(confidence, cells())
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(confidence.grad).all()


def test_fine_loss_weights_certain_predictions_more():
    offset = torch.tensor([[0.1, 0.0], [0.0, 0.3]])
    deviation = torch.tensor([0.1, 0.3])
    targets = FineTargets(torch.zeros(2, 2), torch.ones(2, dtype=torch.bool))
    weights = torch.tensor([10.0, 10 / 3])
    weights = weights / weights.mean()
    expected = (weights * torch.tensor([0.01, 0.09])).mean()
    assert fine_loss(offset, deviation, targets).item() == pytest.approx(expected.item(), rel=1e-5)


def test_fine_loss_ignores_targets_outside_of_the_window():
    offset = torch.tensor([[0.1, 0.0], [0.5, 0.5]], requires_grad=True)
    targets = FineTargets(torch.tensor([[0.0, 0.0], [7.0, 7.0]]), torch.tensor([True, False]))
    loss = fine_loss(offset, torch.tensor([0.1, 0.1]), targets)
    loss.backward()
    assert loss.item() == pytest.approx(0.01, rel=1e-5)
    assert offset.grad is not None
    assert offset.grad[1].abs().sum() == 0


def test_fine_loss_is_zero_without_targets_and_certainty_has_no_gradient():
    offset = torch.zeros(1, 2, requires_grad=True)
    deviation = torch.ones(1, requires_grad=True)
    nothing = FineTargets(torch.full((1, 2), math.nan), torch.tensor([False]))
    loss = fine_loss(offset, deviation, nothing)
    loss.backward()
    assert loss.item() == 0
    assert offset.grad is not None
    assert offset.grad.abs().sum() == 0
    assert deviation.grad is None


def test_true_blocks_hold_a_true_match():
    """4 x 4 cells: blocks of 2 x 2, then the 16 cells in quad order."""
    targets = cells((0, 0, 15), (0, 1, 10), size=(4, 4))
    assert true_blocks(targets, 1, below=1, levels=2).nonzero().tolist() == [[0, 0, 3]]
    assert true_blocks(targets, 1, 0, 2).nonzero().tolist() == [[0, 0, 15], [0, 1, 12]]


ONE_HOT, UNIFORM = torch.eye(4)[None, None] * 8, torch.zeros(1, 1, 4, 4)
EYE = torch.eye(4, dtype=torch.bool)[None]


def test_block_loss_is_small_where_attention_goes_to_the_true_block():
    assert opening_loss(ONE_HOT, ONE_HOT, EYE, opened=1) < 1e-3
    several = torch.ones(1, 4, 4, dtype=torch.bool)
    assert opening_loss(UNIFORM, UNIFORM, several, opened=1).item() == pytest.approx(0, abs=1e-6)


def test_block_loss_knows_how_many_blocks_are_opened():
    """Of four equal blocks one is true: a head opens it with odds of K to 3."""
    for opened, heads, chance in ((1, 1, 1 / 4), (3, 1, 1 / 2), (1, 2, 7 / 16), (3, 2, 3 / 4)):
        uniform = UNIFORM.expand(-1, heads, -1, -1)
        assert opening_loss(uniform, uniform, EYE, opened).item() == pytest.approx(
            -math.log(chance)
        )


def test_masked_blocks_are_no_rivals():
    """One of the three that are not true is masked, so that the odds are 1 to 2."""
    mask = torch.tensor([[True, True, True, False]])
    first = EYE.clone()
    first[0, 1:] = False
    loss = opening_loss(UNIFORM, UNIFORM, first, opened=1, key_mask=mask)
    assert loss.item() == pytest.approx(math.log(3))


def test_a_block_with_several_true_ones_should_open_each():
    """Two of four blocks are true and one has all the weight: the other one is missed."""
    true = EYE.clone()
    true[0, 0, 1] = True
    assert opening_loss(ONE_HOT, ONE_HOT, true, opened=1).item() == pytest.approx(
        math.log(3) / 5, abs=1e-3
    )


def test_one_head_that_finds_the_true_block_is_enough():
    both = torch.cat([ONE_HOT, UNIFORM], dim=1)
    assert opening_loss(both, both, EYE, opened=1).item() == pytest.approx(0, abs=1e-3)


def test_block_loss_has_a_gradient_however_far_the_true_block_is_from_being_opened():
    key = ONE_HOT.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(opening_loss(ONE_HOT, key, EYE.flip(2), opened=1), key)
    assert gradient.isfinite().all()
    assert gradient.abs().amax() > 0.1


def test_block_loss_has_the_gradient_of_its_formula():
    """Key 2 is masked; block 0 has another key beside its true one, the other blocks have none."""
    query, key = torch.randn(2, 1, 2, 3, 8).requires_grad_()
    true = torch.tensor([[[True, False, False], [True, True, False], [True, True, True]]])
    mask = torch.tensor([[True, True, False]])
    true &= mask[:, None]
    scores = query @ key.mT * 8**-0.5
    rest = scores.masked_fill((true | ~mask)[:, None], -1e4).logsumexp(dim=-1, keepdim=True)
    chance = (scores - rest + math.log(2)).sigmoid()
    expected = -(1 - (1 - chance).prod(dim=1)).log()[true].mean()
    loss = opening_loss(query, key, true, opened=2, key_mask=mask)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(x, (query, key)) for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_blocks_without_a_true_match_add_nothing():
    true = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert opening_loss(UNIFORM, UNIFORM, true, opened=1) == 0
    true[0, 0, 0] = True
    assert opening_loss(UNIFORM, UNIFORM, true, opened=1).item() == pytest.approx(math.log(4))


def test_the_loss_of_a_call_averages_the_levels_above_the_finest():
    """K of the middle level is 2, the coarsest has one block alone, and the finest is not asked."""
    attention, zeros = QuadTreeAttention(1, (1, 2, 5)), torch.zeros(1, 2, 4, 4)
    call = AttentionCall(1, "0to1", attention, zeros, zeros, zeros, None, None)
    targets = cells((0, 0, 0), size=(4, 4))
    true = [true_blocks(targets, 1, below, levels=3) for below in (2, 1)]
    assert call_loss(call, true).item() == pytest.approx((math.log(5 / 2) + 0) / 2)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[:, 2:] = False
    masked = call_loss(call._replace(key_mask=mask), true)
    assert masked.item() == pytest.approx((math.log(3 / 2) + 0) / 2)


def test_a_match_is_asked_of_both_images_in_its_own_direction():
    """Block 0 of image 0 looks like its true block 3 of image 1, and the other way round."""
    query, key = torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4)
    query[0, :, :2, :2] = key[0, :, 2:, 2:] = 4
    attention, targets = QuadTreeAttention(1, (1, 1)), cells((0, 0, 15), size=(4, 4))
    forward = AttentionCall(1, "0to1", attention, query, key, key, None, None)
    backward = AttentionCall(1, "1to0", attention, key, query, query, None, None)
    device = torch.device("cpu")
    assert level_loss([forward, backward], targets, device) < 1e-3
    swapped = [forward._replace(direction="1to0"), backward._replace(direction="0to1")]
    assert level_loss(swapped, targets, device) > 1
    assert level_loss([], targets, device) == 0


def test_found_matches_are_those_whose_best_partner_is_true():
    confidence = torch.zeros(1, 4, 4)
    confidence[0, 0, 1] = confidence[0, 1, 0] = 1
    assert found(confidence, cells((0, 0, 1), (0, 1, 3))).tolist() == [True, False]
    assert found(confidence, cells()).numel() == 0


@pytest.mark.parametrize("masked", [False, True])
def test_true_log_confidences_equal_those_of_the_whole_matrix(masked: bool):
    """Values and gradients, with a pair of images that has no true match."""
    torch.manual_seed(0)
    head = CoarseMatcher(CoarseConfig())
    features = [torch.randn(3, 8, 4, h, requires_grad=True) for h in (6, 5)]
    masks: list[torch.Tensor | None] = [None, None]
    if masked:
        masks = [torch.ones(3, 4, h, dtype=torch.bool) for h in (6, 5)]
        masks[0][1, 3:] = False  # pyright: ignore
        masks[1][:, :, 4:] = False  # pyright: ignore
    index = torch.tensor([[0, 0, 0, 2, 2], [1, 5, 9, 0, 17], [3, 3, 8, 11, 0]])
    targets = CoarseTargets(index[0], index[1], index[2], (4, 6), (4, 5))
    weights = torch.rand(5)
    whole = head.log_confidence(features[0], features[1], masks[0], masks[1])
    expected = whole[targets.batch, targets.index0, targets.index1]
    value, partner = true_log_confidence(features[0], features[1], masks[0], masks[1], 0.1, targets)
    assert torch.allclose(value, expected, atol=1e-4)
    assert torch.equal(partner == targets.index1, found(whole, targets))
    for got, want in zip(
        torch.autograd.grad((value * weights).sum(), features),
        torch.autograd.grad((expected * weights).sum(), features),
        strict=True,
    ):
        assert torch.allclose(got, want, atol=1e-4)


def test_at_most_so_many_matches_are_drawn_in_their_order() -> None:
    targets = cells(*((b, i, 9 - i) for b in (0, 1) for i in range(10)))
    some = drawn(targets, 6)
    taken = list(zip(*(column.tolist() for column in some[:3]), strict=True))
    assert len(set(taken)) == 6
    assert taken == sorted(taken)
    assert all(i + j == 9 for _, i, j in taken)
    assert drawn(targets, 0) is targets
    assert drawn(targets, 20) is targets


def test_true_matches_of_no_chance_keep_finite_losses_and_gradients() -> None:
    features = [(100 * torch.eye(4)).view(1, 4, 2, 2).requires_grad_() for _ in range(2)]
    true, partner = true_log_confidence(
        features[0], features[1], None, None, 0.1, cells((0, 0, 3), (0, 1, 1))
    )
    assert true.tolist() == pytest.approx([-50_000.0, 0.0])
    assert partner.tolist() == [0, 1]
    assert all(g.isfinite().all() for g in torch.autograd.grad(true.sum(), features))


def test_a_limit_on_blocks_keeps_the_mean() -> None:
    uniform = torch.zeros(1, 1, 16, 4)
    true = torch.eye(16, dtype=torch.bool)[None].clone()
    for _ in range(2):
        loss = opening_loss(uniform, uniform, true, opened=1, limit=3)
        assert loss.item() == pytest.approx(math.log(16))
        true[:, 1:] = False


def test_heatmap_loss_is_the_cross_entropy_with_the_bilinear_position():
    log_heat = torch.randn(3, 5, 5).flatten(1).log_softmax(dim=1).view(3, 5, 5)
    # Two samples make a half window: x = 2 + 2 * 0.25 = 2.5, y = 2 - 2 * 0.5 = 1; then a corner.
    targets = FineTargets(
        torch.tensor([[0.25, -0.5], [1.0, 1.0], [3.0, 0.0]]), torch.tensor([True, True, False])
    )
    first = (log_heat[0, 1, 2] + log_heat[0, 1, 3]) / 2
    expected = -(first + log_heat[1, 4, 4]) / 2
    assert heatmap_loss(log_heat, targets).item() == pytest.approx(expected.item(), rel=1e-5)
    nothing = FineTargets(targets.offset, torch.zeros(3, dtype=torch.bool))
    assert heatmap_loss(log_heat, nothing).item() == 0.0


def test_perfect_heat_refines_to_the_true_position():
    offset = torch.tensor([[0.3, -0.7], [0.05, 0.5]])
    logits = torch.zeros(2, 7, 7, requires_grad=True)
    targets = FineTargets(offset, torch.ones(2, dtype=torch.bool))
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        log_heat = logits.flatten(1).log_softmax(dim=1).view(2, 7, 7)
        heatmap_loss(log_heat, targets).backward()
        optimizer.step()
    mean, _ = expectation(logits.detach().flatten(1).softmax(dim=1).view(2, 7, 7))
    assert (mean - offset).abs().max() < 1e-2
