"""LoFTR in this project against kornia's, an independent implementation, with the same weights."""

import kornia.feature
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.network.model import FeatureMatcher
from matcher.weights.checkpoint import load_safetensors
from matcher.weights.convert import convert

THRESHOLD = 1e-6
Matcher = tuple[FeatureMatcher, kornia.feature.LoFTR]


@pytest.fixture(scope="module")
def matchers(tmp_path_factory: pytest.TempPathFactory) -> Matcher:
    """Both with the same random weights, brought here as a checkpoint in the official layout."""
    torch.manual_seed(0)
    theirs = kornia.feature.LoFTR(pretrained=None)
    theirs.coarse_matching.thr = THRESHOLD
    calibrate(theirs.backbone)
    theirs.eval()
    state = {f"matcher.{name}": tensor for name, tensor in theirs.state_dict().items()}
    folder = tmp_path_factory.mktemp("kornia")
    torch.save({"state_dict": state, "epoch": 1}, folder / "loftr.ckpt")
    convert(folder / "loftr.ckpt", folder / "loftr.safetensors")
    overrides = {"coarse.threshold": THRESHOLD}
    return load_safetensors(folder / "loftr.safetensors", overrides=overrides), theirs


@torch.no_grad()
def calibrate(backbone: torch.nn.Module) -> None:
    """Set the running statistics, without which random features are too alike to match."""
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    backbone.train()(torch.cat(pair((96, 128), (96, 128))))


def pair(size0: tuple[int, int], size1: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two crops, some 16 pixels apart, of one random texture."""
    generator = torch.Generator().manual_seed(sum(size0))
    h, w = (max(a, b) + 16 for a, b in zip(size0, size1, strict=True))
    noise = [torch.rand(1, 1, h // s, w // s, generator=generator) for s in (2, 8)]
    texture = sum(F.interpolate(n, (h, w), mode="bilinear") for n in noise) / 2
    return texture[..., : size0[0], : size0[1]], texture[..., 16:, 16:][..., : size1[0], : size1[1]]


def cells(keypoints0: Tensor) -> list[tuple[float, ...]]:
    return [tuple(point) for point in keypoints0.tolist()]


def matched(keypoints1: Tensor, score: Tensor) -> Tensor:
    return torch.cat([keypoints1, score[:, None]], dim=1)


def match_is(ours: Tensor, theirs: Tensor) -> bool:
    """Within 0.01 px and 0.001 of confidence."""
    return bool(((ours - theirs).abs() <= torch.tensor([1e-2, 1e-2, 1e-3])).all())


@pytest.mark.parametrize(
    ("size0", "size1"), [((128, 160), (128, 160)), ((104, 136), (120, 112)), ((88, 96), (160, 88))]
)
@torch.no_grad()
def test_matches_of_kornia(
    matchers: Matcher, size0: tuple[int, int], size1: tuple[int, int]
) -> None:
    ours, theirs = matchers
    image0, image1 = pair(size0, size1)
    output = ours(image0, image1)
    reference = theirs({"image0": image0, "image1": image1})
    mine = dict(
        zip(cells(output.keypoints0), matched(output.keypoints1, output.score), strict=True)
    )
    published = zip(
        cells(reference["keypoints0"]),
        matched(reference["keypoints1"], reference["confidence"]),
        strict=True,
    )
    common = [cell for cell, match in published if cell in mine and match_is(mine[cell], match)]
    total = max(len(mine), len(reference["confidence"]))
    assert total > 20
    assert len(common) >= 0.98 * total
