"""The stereo network: exact masks, probabilities, any width, and what a correct head must find."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.synthetic.stereo import StereoSceneConfig, StereoScenes
from matcher.attention.dense import FullAttention
from matcher.attention.pyramid import token_pyramid
from matcher.errors import UsageError
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.losses import stereo_loss
from matcher.tasks.stereo.matching import (
    RowMatching,
    assign,
    best_disparity,
    expected_log_probability,
)
from matcher.tasks.stereo.model import Stereo
from matcher.tasks.stereo.refine import choose_cells, correlations, moved, upsample
from matcher.tasks.stereo.rows import RowTreeAttention, to_rows
from matcher.tasks.stereo.structures import StereoOutput, StereoPair
from matcher.tasks.stereo.training import StereoOptimConfig
from tests.helpers.stereo import TINY, plain_training


@pytest.fixture(scope="module")
def model() -> Stereo:
    torch.manual_seed(0)
    return Stereo(TINY).eval()


def views(height: int, width: int, batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    left = torch.rand(batch, 1, height, width, generator=generator)
    return left, left.roll(-5, dims=-1)


def row_maps(*size: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*size, generator=generator) for _ in range(3)]


def test_a_row_tree_that_keeps_all_keys_is_the_sum_of_full_attention_of_its_levels() -> None:
    q, k, v = row_maps(2, 8, 3, 64)
    tree = RowTreeAttention(2, (64, 64, 64), coarsest_keys=128)
    message = tree(q, k, v)
    levels = zip(*(token_pyramid(to_rows(x, 2), [None] * 3) for x in (q, k, v)), strict=True)
    expected = sum(
        FullAttention.attend(a, b, c, None, None).repeat_interleave(4 ** (2 - i), dim=2) / 3
        for i, (a, b, c) in enumerate(levels)
    )
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(to_rows(message, 2), expected, atol=1e-6, rtol=0)


def test_masked_columns_have_no_influence_on_a_row() -> None:
    q, k, v = row_maps(2, 8, 3, 50)
    mask = (torch.arange(50) < 37).expand(2, 3, -1)
    tree = RowTreeAttention(2, (4, 4), coarsest_keys=128)
    first = tree(q, k, v, mask, mask)
    k[..., 37:], v[..., 37:] = 1e3, -1e3
    assert torch.equal(tree(q, k, v, mask, mask)[..., :37], first[..., :37])


def test_rows_do_not_see_each_other() -> None:
    q, k, v = row_maps(1, 8, 4, 48)
    tree = RowTreeAttention(2, (4, 4), coarsest_keys=128)
    first = tree(q, k, v)
    k[:, :, 2], v[:, :, 2] = 7.0, 7.0
    second = tree(q, k, v)
    assert torch.equal(first[:, :, [0, 1, 3]], second[:, :, [0, 1, 3]])
    assert not torch.equal(first[:, :, 2], second[:, :, 2])


def test_long_rows_get_levels_on_top_until_the_coarsest_is_short() -> None:
    tree = RowTreeAttention(2, (4, 4), coarsest_keys=16)
    assert [tree.extra_levels(w) for w in (64, 65, 256, 257, 1024)] == [0, 1, 1, 2, 2]
    q, k, v = row_maps(1, 8, 2, 130)
    assert torch.isfinite(tree(q, k, v)).all()


def test_probabilities_of_a_cell_sum_to_one_and_none_is_right_of_it() -> None:
    scores = torch.randn(6, 40, 40, generator=torch.Generator().manual_seed(0)) * 9
    inside = (torch.arange(40) < 33).expand(6, -1)
    p = assign(scores, torch.tensor(1.0), inside)
    torch.testing.assert_close(p.sum(-1), torch.ones(6, 40), atol=1e-6, rtol=0)
    beyond = torch.ones(40, 40, dtype=torch.bool).triu(1)
    assert p[:, :, :40][:, beyond].abs().max() == 0
    assert p[:, :33, 33:40].abs().max() == 0


def test_a_right_cell_goes_to_the_one_left_cell_that_fits_it_better() -> None:
    scores = torch.full((1, 12, 12), -20.0)
    scores[0, 8, 3], scores[0, 9, 3] = 9.0, 6.0
    p = assign(scores, torch.tensor(0.0), None)
    assert p[0, 8, 3] > 0.94
    assert p[0, 9, 3] < 0.06
    assert p[0, 9, -1] > 0.94


def test_masked_columns_have_no_influence_on_probabilities() -> None:
    scores = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(1)) * 5
    inside = (torch.arange(24) < 20).expand(3, -1)
    first = assign(scores, torch.tensor(0.0), inside)[:, :20, :20]
    scores[:, 20:], scores[:, :, 20:] = 50.0, 50.0
    assert torch.equal(assign(scores, torch.tensor(0.0), inside)[:, :20, :20], first)


@pytest.mark.parametrize("shift", [0, 3, 4, 11])
def test_a_shifted_random_texture_has_its_shift_after_the_head(shift: int) -> None:
    """Oracle features: the texture itself, blurred a little so that it has a slope."""
    generator = torch.Generator().manual_seed(0)
    texture = F.avg_pool2d(torch.randn(1, 24, 8, 4 * 80, generator=generator), (1, 5), 1, (0, 2))
    right = texture[..., : 4 * 64]
    left = F.pad(texture, (shift, 0))[..., : 4 * 64]
    matching = RowMatching(StereoConfig())
    with torch.no_grad():
        matching.log_scale.fill_(3.5)
        found = matching(left, right)
    error = (found.disparity[..., 12:] - shift).abs()
    assert error.mean() < 0.1
    assert found.confidence[..., 12:].mean() > 0.8


def test_disparity_is_the_mean_over_the_window_around_the_best_column() -> None:
    p = torch.zeros(1, 1, 20, 21)
    p[..., 18, 5], p[..., 18, 6], p[..., 18, 14] = 0.4, 0.2, 0.3
    disparity, confidence = best_disparity(p, window=2)
    assert disparity[0, 0, 18].item() == pytest.approx(18 - (0.4 * 5 + 0.2 * 6) / 0.6, abs=1e-5)
    assert confidence[0, 0, 18].item() == pytest.approx(0.6, abs=1e-6)


def test_the_probability_of_a_true_column_lies_between_its_cells() -> None:
    p = torch.full((1, 1, 10, 11), 0.01)
    p[..., 8, 5], p[..., 8, 6] = 0.2, 0.6
    found = expected_log_probability(p, torch.full((1, 1, 10), 2.75))
    assert found[0, 0, 8].exp().item() == pytest.approx(0.75 * 0.2 + 0.25 * 0.6, abs=1e-5)


def test_the_right_view_moved_by_a_constant_is_itself_moved() -> None:
    right = torch.rand(1, 3, 6, 20)
    seen = moved(right, torch.full((1, 1, 6, 20), 4.0))
    torch.testing.assert_close(seen[..., 4:], right[..., :-4], atol=1e-5, rtol=0)
    assert seen[..., :3].abs().max() == 0


def test_correlation_is_one_at_the_true_disparity_alone() -> None:
    right = torch.randn(1, 16, 6, 40, generator=torch.Generator().manual_seed(0))
    left = F.pad(right, (7, 0))[..., :40]
    curve = correlations(left, right, torch.full((1, 1, 6, 40), 5.0), reach=4)
    assert curve.shape == (1, 9, 6, 40)
    assert torch.equal(curve[..., 12:].argmax(dim=1), torch.full((1, 6, 28), 6))
    torch.testing.assert_close(curve[:, 6, :, 12:], torch.ones(1, 6, 28), atol=1e-5, rtol=0)


def test_convex_upsampling_can_keep_an_edge_and_a_constant() -> None:
    x = torch.tensor([1.0, 1, 9, 9]).expand(1, 1, 3, 4)
    own = torch.zeros(1, 9, 4, 3, 4)
    own[:, 4] = 1
    expected = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(upsample(x, own), expected)
    chosen = torch.zeros(1, 9, 6, 8)
    chosen[:, 5] = 1  # the neighbor on the right
    torch.testing.assert_close(
        choose_cells(x, chosen)[0, 0, 0], torch.tensor([1.0, 1, 9, 9, 9, 9, 9, 9])
    )


def test_the_order_of_a_batch_changes_nothing(model: Stereo) -> None:
    left, right = views(32, 64, batch=3)
    right = torch.cat([right[:1].roll(3, -1), right[1:]])
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        first, second = model(left, right), model(left[order], right[order])
    torch.testing.assert_close(first.disparity[order], second.disparity, atol=1e-5, rtol=0)
    torch.testing.assert_close(first.occlusion[order], second.occlusion, atol=1e-5, rtol=0)


def test_a_width_that_does_not_divide_equals_the_padded_one_cropped(model: Stereo) -> None:
    left, right = views(64, 256)
    valid = (torch.arange(256) < 250).expand(2, 64, -1)
    with torch.no_grad():
        narrow = model(left[..., :250], right[..., :250])
        wide = model(left, right, valid)
    assert narrow.disparity.shape == (2, 1, 64, 250)
    torch.testing.assert_close(narrow.disparity, wide.disparity[..., :250], atol=1e-5, rtol=0)
    torch.testing.assert_close(narrow.occlusion, wide.occlusion[..., :250], atol=1e-5, rtol=0)


@pytest.mark.parametrize("cross", ["tree", "full"])
def test_pixels_outside_the_images_have_no_influence(cross: str) -> None:
    torch.manual_seed(0)
    model = Stereo(replace(TINY, cross=cross)).eval()
    left, right = views(32, 96)
    valid = (torch.arange(96) < 70).expand(2, 32, -1)
    with torch.no_grad():
        first = model(left, right, valid).disparity[..., :70]
        left[..., 70:], right[..., 70:] = 0.9, 0.1
        second = model(left, right, valid).disparity[..., :70]
    assert (first - second).abs().max() == 0


def test_outputs_have_the_size_of_the_images_and_no_negative_disparity(model: Stereo) -> None:
    left, right = views(37, 101, batch=1)
    with torch.no_grad():
        output = model(left, right)
    assert output.disparity.shape == output.occlusion.shape == (1, 1, 37, 101)
    assert output.probability.shape == (1, 12, 28, 29)
    assert (output.disparity >= 0).all()
    torch.testing.assert_close(output.probability.sum(-1), torch.ones(1, 12, 28))


def test_no_disparity_points_left_of_the_right_picture(model: Stereo) -> None:
    with torch.no_grad():
        coarse = model(*views(32, 128)).coarse
    assert (coarse <= torch.arange(32) + 1e-4).all()


def truth(output: StereoOutput, disparity: float) -> StereoPair:
    b, _, height, width = output.disparity.shape
    field = torch.full((b, height, width), disparity)
    nothing = torch.zeros(b, height, width, dtype=torch.bool)
    occluded = (torch.arange(width) < disparity).expand_as(nothing)
    image = torch.zeros(b, 1, height, width)
    return StereoPair(image, image, field, occluded, ~nothing)


def perfect(disparity: int, height: int = 16, width: int = 64) -> StereoOutput:
    h, w, d = height // 4, width // 4, disparity // 4
    p = torch.zeros(1, h, w, w + 1)
    column = torch.arange(w)
    p[:, :, column[d:], column[d:] - d] = 1.0
    p[:, :, :d, -1] = 1.0
    occlusion = torch.where(torch.arange(width) < disparity, 20.0, -20.0)
    return StereoOutput(
        p,
        torch.full((1, 1, h, w), float(d)),
        torch.full((1, 1, height, width), float(disparity)),
        occlusion.expand(1, 1, height, width),
    )


def test_a_perfect_output_has_no_loss_and_a_wrong_one_has() -> None:
    output = perfect(8)
    good = stereo_loss(output, truth(output, 8.0))
    assert all(value < 1e-4 for value in good.values())
    wrong = stereo_loss(perfect(16), truth(output, 8.0))
    assert all(wrong[name] > good[name] + 0.05 for name in good)


def test_pixels_without_truth_take_no_part_in_the_loss() -> None:
    output = perfect(8)
    pair = truth(output, 8.0)
    nothing = torch.zeros_like(pair.valid)
    unknown = replace(pair, valid=nothing, disparity=pair.disparity * 3)
    assert all(value == 0 for value in stereo_loss(output, unknown).values())


def test_twenty_steps_lower_the_loss_and_are_the_same_again() -> None:
    scenes = StereoScenes(
        StereoSceneConfig(sizes=((32, 64),), shares=(1.0,), texture_side=64, procedural=9)
    )
    batch = StereoPair.collate([scenes[i] for i in range(4)])
    optim = StereoOptimConfig(rate=5e-3, warmup_pairs=8)
    losses = [plain_training(TINY, optim, [batch] * 20)[1] for _ in range(2)]
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.8 * losses[0][0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"cross": "half"}, "stereo.cross"),
        ({"heads": 5}, "stereo.heads"),
        ({"self_topks": ()}, "stereo.self_topks"),
        ({"layers": -1}, "stereo.layers"),
    ],
)
def test_impossible_options_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        replace(TINY, **change)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_four_pairs_are_learned_by_heart_in_300_steps() -> None:
    scenes = StereoScenes(
        StereoSceneConfig(sizes=((128, 256),), shares=(1.0,), texture_side=256, procedural=90)
    )
    batch = StereoPair.collate([scenes[i] for i in range(4)])
    optim = StereoOptimConfig(rate=2e-3, warmup_pairs=40, total_pairs=1200)
    module, _ = plain_training(StereoConfig(), optim, [batch] * 300)
    with torch.no_grad():
        output = module.eval().model(batch.left, batch.right)
    seen = batch.valid & ~batch.occluded
    error = (output.disparity[:, 0] - batch.disparity).abs()[seen]
    assert (error > 3).float().mean() < 0.02
    hidden = output.occlusion[:, 0] > 0
    assert (hidden & batch.occluded).sum() / (hidden | batch.occluded).sum() > 0.9
