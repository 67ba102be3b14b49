"""What is fused for inference gives the same results."""

from dataclasses import replace

import pytest
import torch

from matcher.config import BackboneConfig
from matcher.network.backbone import Backbone
from matcher.network.fuse import fuse, fuse_norms
from matcher.network.model import build_matcher
from tests.helpers.models import COMPACT


def image(h: int, w: int, seed: int) -> torch.Tensor:
    return torch.rand(2, 1, h, w, generator=torch.Generator().manual_seed(seed))


WIDE = BackboneConfig(initial_dim=8, block_dims=(8, 12, 16), depths=(1, 1, 1))


@pytest.mark.parametrize("config", [COMPACT.backbone, WIDE], ids=["lean", "wide"])
def test_fused_norms_leave_the_features_as_they_are(config: BackboneConfig) -> None:
    torch.manual_seed(0)
    backbone = Backbone(config)
    backbone(image(64, 64, seed=0))  # statistics that are not the initial ones
    backbone.eval()
    with torch.inference_mode():
        expected = backbone(image(32, 64, seed=1))
        fuse_norms(backbone)
        fused = backbone(image(32, 64, seed=1))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.modules())
    for a, b in zip(fused, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_fused_projections_leave_the_refined_points_as_they_are() -> None:
    torch.manual_seed(0)
    model = build_matcher(COMPACT).eval()
    one, other = image(64, 96, seed=1), image(96, 64, seed=2)
    with torch.inference_mode():
        features = model.extract(one), model.extract(other)
        expected = model.match(*features, threshold=0.0)
        fuse(model)
        fused = model.extract(one), model.extract(other)
        found = model.match(*fused, threshold=0.0)
    assert isinstance(model.backbone.merges[1].project, torch.nn.Identity)
    torch.testing.assert_close(fused[0].coarse, features[0].coarse, atol=1e-4, rtol=1e-4)
    assert len(found.score) == len(expected.score) > 10
    torch.testing.assert_close(found.keypoints1, expected.keypoints1, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.deviation, expected.deviation, atol=1e-4, rtol=1e-4)


def test_fine_heads_without_coarse_features_keep_the_last_projection() -> None:
    torch.manual_seed(0)
    config = replace(COMPACT, fine=replace(COMPACT.fine, use_coarse=False))
    model = build_matcher(config).eval()
    with torch.inference_mode():
        expected = model.extract(image(64, 64, seed=1)).fine
        fuse(model)
        torch.testing.assert_close(
            model.extract(image(64, 64, seed=1)).fine, expected, atol=1e-4, rtol=1e-4
        )
