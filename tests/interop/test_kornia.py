"""The adapter that stands in for kornia's LoFTR."""

from __future__ import annotations

import pytest
import torch
from kornia.feature import LoFTR

from matcher import Predictor
from matcher.errors import UsageError
from matcher.interop.kornia import KorniaMatcher
from tests.helpers.models import noise, tiny_model


def batch(*shapes: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.stack(
        [torch.from_numpy(noise(*shape, seed + i))[None] for i, shape in enumerate(shapes)]
    )


@pytest.fixture(scope="module")
def adapter() -> KorniaMatcher:
    return KorniaMatcher(tiny_model()).eval()


@torch.no_grad()
def test_keys_types_and_shapes_are_those_of_kornia(adapter: KorniaMatcher) -> None:
    data = {"image0": batch((64, 96), (64, 96)), "image1": batch((96, 64), (96, 64), seed=5)}
    torch.manual_seed(0)
    kornia = LoFTR(pretrained=None).eval()
    kornia.coarse_matching.thr = 0.0
    theirs, ours = kornia(dict(data)), adapter(data)
    assert set(ours) == set(theirs)
    assert len(ours["confidence"]) > 0
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype, key
        assert ours[key].shape[1:] == value.shape[1:], key
    assert (ours["batch_indexes"].diff() >= 0).all()
    assert set(ours["batch_indexes"].tolist()) == {0, 1}


@torch.no_grad()
def test_every_pair_of_a_batch_matches_as_the_predictor_says(adapter: KorniaMatcher) -> None:
    image0, image1 = batch((75, 101), (75, 101)), batch((88, 90), (88, 90), seed=7)
    found = adapter({"image0": image0, "image1": image1})
    predictor = Predictor(adapter.model, device="cpu", dtype="float32")
    for b in range(2):
        alone = predictor.match(image0[b], image1[b])
        of_pair = found["batch_indexes"] == b
        inside = (found["keypoints1"] >= 0).all(dim=1)
        inside &= (found["keypoints1"] < torch.tensor([90, 88])).all(dim=1)
        order = torch.argsort(found["confidence"][of_pair & inside], descending=True)
        keypoints1 = found["keypoints1"][of_pair & inside][order]
        assert len(alone) == len(keypoints1) > 20
        assert (keypoints1 - alone.keypoints1).abs().max() < 1e-3


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.bool, torch.float32])
def test_masks_keep_matches_inside(adapter: KorniaMatcher, kind: torch.dtype) -> None:
    mask = torch.zeros(1, 100, 100, dtype=kind)
    mask[:, 30:80, 40:] = 1
    image = batch((100, 100))
    found = adapter({"image0": image, "image1": image, "mask0": mask})
    assert len(found["confidence"]) > 10
    x, y = found["keypoints0"].long().unbind(1)
    assert mask[0, y, x].bool().all()


@torch.no_grad()
def test_no_match_gives_empty_tensors(adapter: KorniaMatcher) -> None:
    image, nothing = batch((64, 64)), torch.zeros(1, 64, 64)
    found = adapter({"image0": image, "image1": image, "mask0": nothing})
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    assert shapes == {
        "keypoints0": (0, 2),
        "keypoints1": (0, 2),
        "confidence": (0,),
        "batch_indexes": (0,),
    }


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"image1": None}, "image1"),
        ({"image0": torch.zeros(1, 3, 64, 64)}, "image0"),
        ({"image0": torch.zeros(64, 64)}, "image0"),
        ({"image1": torch.zeros(2, 1, 64, 64)}, "image1"),
        ({"mask0": torch.ones(1, 8, 8)}, "mask0"),
    ],
)
def test_wrong_shapes_are_named(adapter: KorniaMatcher, change: dict, name: str) -> None:
    data = {"image0": torch.zeros(1, 1, 64, 64), "image1": torch.zeros(1, 1, 64, 64), **change}
    with pytest.raises(UsageError, match=f"E201 {name}: "):
        adapter({key: value for key, value in data.items() if value is not None})
