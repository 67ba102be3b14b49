"""The whole network: shapes, masks, sizes, position encoding, backbone alignment."""

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch

from matcher.config import FineConfig, MatcherConfig, PositionConfig, TransformerConfig
from matcher.errors import UsageError
from matcher.network import block as block_module
from matcher.network import transformer as transformer_module
from matcher.network.backbone import Backbone
from matcher.network.block import ConvMLP
from matcher.network.fine import FineMatcher, expectation
from matcher.network.model import build_matcher
from matcher.network.position import PositionEncoding, sine_encoding
from matcher.network.transformer import build_transformer
from matcher.validation.checked import config_from_dict
from tests.helpers.models import COMPACT, PUBLISHED_TINY


def image(h: int, w: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 1, h, w, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "config",
    [
        PUBLISHED_TINY,
        config_from_dict(
            MatcherConfig,
            {
                "backbone": {
                    "resolution": [16, 4],
                    "initial_dim": 8,
                    "block_dims": [8, 8, 12, 16],
                    "depths": [1, 1, 1, 1],
                },
                "transformer": {"layers": ["self", "cross"], "heads": 2, "topks": [4, 4]},
                "coarse": {"threshold": 0.0, "border": 0},
                "fine": {"heads": 2},
            },
        ),
        config_from_dict(
            MatcherConfig,
            {
                "backbone": {"initial_dim": 8, "block_dims": [8, 12, 16], "pyramid": "lean"},
                "transformer": {
                    "layers": ["self", "cross"],
                    "heads": 2,
                    "block": "loftr",
                    "attention": "linear",
                },
                "coarse": {"match_type": "sinkhorn", "threshold": 0.0, "border": 0},
                "fine": {"heads": 2, "layers": [], "use_coarse": False},
            },
        ),
    ],
    ids=["quadtree-8-2", "quadtree-16-4", "loftr-sinkhorn"],
)
def test_every_variant_matches_two_images_of_different_sizes(config: MatcherConfig) -> None:
    torch.manual_seed(0)
    model = build_matcher(config).eval()
    with torch.inference_mode():
        out = model(image(64, 96), image(96, 64, seed=1))
    stride = config.backbone.resolution[0]
    assert len(out.score) > 0
    assert (out.keypoints0 % stride == 0).all()
    reach = config.fine.window // 2 * config.backbone.resolution[1]
    cell = model.cell_centers(out.coarse.index1, 64 // stride)
    assert ((out.keypoints1 - cell).abs() <= reach).all()
    pairs = out.split(2)
    assert sum(map(len, pairs)) == len(out.score)
    assert (pairs[0].scores.diff() <= 0).all()


def test_masked_pixels_never_match() -> None:
    torch.manual_seed(0)
    model = build_matcher(PUBLISHED_TINY).eval()
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[:, :33, :41] = True
    with torch.inference_mode():
        out = model(image(64, 64), image(64, 64, seed=1), mask, None)
    assert len(out.score) > 0
    assert (out.keypoints0 <= torch.tensor([40.0, 32.0])).all()


def test_image_that_is_no_multiple_of_the_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match="100x64 is not divisible by 32"):
        build_matcher(PUBLISHED_TINY).extract(torch.zeros(1, 1, 100, 64))


def test_coarse_cell_i_is_centerd_on_pixel_8i() -> None:
    """A symmetric image about pixel 8i gives a map symmetric about cell i."""
    torch.manual_seed(0)
    backbone = Backbone(COMPACT.backbone).eval()
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = (module.weight.data + module.weight.data.flip(3)) / 2
    half = torch.rand(1, 1, 160, 80)
    full = torch.cat([half, torch.rand(1, 1, 160, 1), half.flip(3)], dim=3)[..., :160]
    coarse = backbone(full).coarse  # symmetric about pixel 80, but for the padding on the right
    torch.testing.assert_close(coarse[..., 9], coarse[..., 11], atol=1e-4, rtol=1e-3)
    assert (coarse[..., 9] - coarse[..., 12]).abs().max() > 1e-2


def test_sine_encoding_starts_at_one_and_has_the_published_frequencies() -> None:
    x = torch.arange(1, 4)
    encoding = sine_encoding(torch.arange(1, 3), x, 16)
    assert encoding.shape == (16, 2, 3)
    torch.testing.assert_close(encoding[0, 0], x.float().sin())
    torch.testing.assert_close(encoding[3, :, 0], torch.tensor([1.0, 2.0]).cos())
    torch.testing.assert_close(encoding[4, 0], (x * 10000 ** (-2 / 8)).sin())
    legacy = sine_encoding(torch.arange(1, 3), x, 16, "legacy")
    torch.testing.assert_close(legacy[4, 0], (x * math.exp(-2)).sin())


def test_position_shift_moves_the_origin_in_training_only() -> None:
    torch.manual_seed(0)
    position = PositionEncoding(PositionConfig(shift=50))
    x = torch.zeros(1, 8, 4, 4)
    assert not torch.equal(position(x), position(x))
    position.eval()
    assert torch.equal(position(x)[0], sine_encoding(torch.arange(1, 5), torch.arange(1, 5), 8))


def test_expectation_finds_the_center_of_mass() -> None:
    heat = torch.zeros(2, 5, 5)
    heat[0, 1, 4] = 1.0
    heat[1, 2, 0] = heat[1, 2, 4] = 0.5
    mean, deviation = expectation(heat)
    torch.testing.assert_close(mean, torch.tensor([[1.0, -0.5], [0.0, 0.0]]))
    torch.testing.assert_close(deviation, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)


def fine_matcher(**options: Any) -> FineMatcher:
    config = FineConfig(window=7, layers=(), use_coarse=False, **options)
    return FineMatcher(config, coarse_dim=8, fine_dim=8, ratio=4)


def test_with_local_a_position_is_the_mean_of_the_samples_near_the_best() -> None:
    heat = torch.full((1, 7, 7), 1e-9)
    heat[0, 2, 4], heat[0, 2, 5], heat[0, 6, 0] = 0.4, 0.2, 0.4 - 1e-6
    offset, _ = fine_matcher(local=1).soft_argmax(heat.log())
    torch.testing.assert_close(offset, torch.tensor([[4 / 9, -1 / 3]]), atol=1e-5, rtol=0)
    offset, _ = fine_matcher(local=2).soft_argmax(heat.log())
    torch.testing.assert_close(offset, torch.tensor([[4 / 9, -1 / 3]]), atol=1e-5, rtol=0)
    everywhere, _ = fine_matcher().soft_argmax(heat.log())
    torch.testing.assert_close(everywhere, expectation(heat)[0])


def test_with_normalize_a_feature_is_most_like_itself_whatever_the_lengths_of_others() -> None:
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(1, 8, 40, 40, generator=generator)
    fine = fine * torch.rand(1, 1, 40, 40, generator=generator).mul(3).exp()
    coarse, cells = torch.zeros(1, 8, 10, 10), torch.arange(100)
    arguments = (fine, fine, coarse, coarse, torch.zeros_like(cells), cells, cells)
    found = fine_matcher(normalize=True).correlate(*arguments).flatten(1).argmax(dim=1)
    assert (found == 24).all()  # the middle of 7 x 7
    plain = fine_matcher().correlate(*arguments).flatten(1).argmax(dim=1)
    assert (plain == 24).float().mean() < 0.9


def test_compact_keeps_its_promises_of_size() -> None:
    parameters = sum(p.numel() for p in build_matcher(COMPACT).parameters())
    assert parameters <= 3_000_000
    assert 2 * parameters <= 7_000_000


def test_config_survives_a_round_trip_through_plain_values() -> None:
    for config in (MatcherConfig(), COMPACT, PUBLISHED_TINY):
        assert config_from_dict(MatcherConfig, asdict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbon": {}}, "E202 backbon: unknown option; did you mean 'backbone'?"),
        ({"coarse": {"treshold": 0.1}}, "E202 coarse.treshold: unknown option; did you mean 't"),
        ({"coarse": {"threshold": float("nan")}}, "E201 coarse.threshold: got nan"),
        ({"coarse": {"threshold": True}}, "E201 coarse.threshold: got True"),
        ({"transformer": {"heads": 3}}, "E201 transformer.heads: got 3; expected a divisor of"),
        ({"transformer": {"topks": []}}, "E201 transformer.topks: got ()"),
        ({"transformer": {"attention": "quadtre"}}, "did you mean 'quadtree'?"),
        ({"fine": {"window": 4}}, "E201 fine.window: got 4; expected an odd number"),
        ({"backbone": {"resolution": [4, 1]}}, "E201 backbone.resolution: got (4, 1)"),
        ({"coarse": 3}, "E201 coarse: got 3; expected a group of options"),
        ({"fine": {"use_coarse": "no"}}, "E201 fine.use_coarse: got 'no'; expected true or false"),
    ],
)
def test_wrong_options_are_named(values: dict, message: str) -> None:
    with pytest.raises(UsageError) as error:
        config_from_dict(MatcherConfig, values)
    assert message in str(error.value)
    assert error.value.exit_code == 2


def test_large_images_one_at_a_time_give_what_they_give_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    transformer = build_transformer(TransformerConfig(heads=2), 16)
    x0, x1 = torch.randn(2, 1, 16, 8, 12)
    mask = torch.rand(1, 8, 12) > 0.2
    expected = transformer(x0, x1, mask, None)
    monkeypatch.setattr(transformer_module, "TOGETHER_CELLS", 0)
    for found, wanted in zip(transformer(x0, x1, mask, None), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_an_mlp_in_bands_of_rows_gives_what_it_gives_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlp, tokens = ConvMLP(8, 2), torch.randn(2, 70, 5, 8)
    mask = torch.rand(2, 70, 5) > 0.2
    with torch.no_grad():
        whole = mlp(tokens, mask)
        monkeypatch.setattr(block_module, "BAND_CELLS", 5 * 32)
        torch.testing.assert_close(mlp(tokens, mask), whole)
