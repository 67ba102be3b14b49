"""Adapters to the published interfaces of hloc, image-matching-webui, vismatch and transformers.

The packages are large and not installed here: small stand-ins do what their pages and sources say
they do with a model.
"""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from matcher import load_matcher
from matcher.errors import UsageError
from matcher.interop import hloc, image_matching_webui
from matcher.interop.huggingface import KeypointMatcher, Processor
from matcher.interop.kornia import KorniaMatcher
from matcher.interop.vismatch import quadmatch
from matcher.structures import Matches
from matcher.weights.checkpoint import save_safetensors
from tests.helpers.models import noise, tiny_model


class HlocModel(nn.Module):
    """What hloc's BaseModel does: settings over defaults, ``_init``, inputs checked."""

    default_conf: ClassVar[dict[str, Any]] = {}
    required_inputs: ClassVar[list[str]] = []

    def __init__(self, conf: dict[str, Any]) -> None:
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        assert set(self.required_inputs) <= set(data)
        return self._forward(data)


class VismatchModel(nn.Module):
    """What vismatch's BaseMatcher does: seven values of ``_forward``, arrays of agreeing shapes."""

    def __init__(self, device: str = "cpu", **settings: Any) -> None:
        super().__init__()
        self.device, self.settings = device, settings

    def forward(self, img0: Tensor, img1: Tensor) -> dict[str, np.ndarray]:
        points0, points1, *others, scores = self._forward(img0, img1)
        assert others == [None] * 4
        assert points0.shape == points1.shape == (len(scores), 2)
        return {"matched_kpts0": points0, "matched_kpts1": points1, "matched_confidences": scores}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save_safetensors(tiny_model(), tmp_path / "tiny.safetensors")
    return str(tmp_path / "tiny.safetensors")


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """Let a module be importable, with the packages above it."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        dotted = ".".join(parts[:end])
        if dotted not in sys.modules:
            module = ModuleType(dotted)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, dotted, module)
    for member, value in members.items():
        setattr(sys.modules[name], member, value)


def found_by_name(package: str, name: str) -> type:
    """The only class of a module of matchers, as hloc looks for it."""
    module = import_module(f"{package}.matchers.{name}")
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass)]
    (model,) = [c for c in classes if c.__module__ == f"{package}.matchers.{name}"]
    return model


def images() -> tuple[Tensor, Tensor]:
    return torch.from_numpy(noise(64, 96))[None, None], torch.from_numpy(noise(72, 80, 3))[
        None, None
    ]


def equal(found: dict[str, Any], expected: Matches) -> None:
    assert len(expected) > 10
    for name in ("keypoints0", "keypoints1", "scores"):
        np.testing.assert_array_equal(np.asarray(found[name]), getattr(expected, name).numpy())


@pytest.mark.parametrize("package", ["hloc", "imcui.hloc"])
def test_hloc_finds_the_matcher_by_name_and_gets_its_matches(
    monkeypatch: pytest.MonkeyPatch, weights: str, package: str
) -> None:
    install(monkeypatch, f"{package}.utils.base_model", BaseModel=HlocModel)
    install(monkeypatch, f"{package}.matchers")
    if package == "hloc":
        hloc.register()
        conf = hloc.CONF["model"]
    else:
        confs: dict[str, Any] = {}
        image_matching_webui.register(confs)
        conf = confs["loftr_quadtree"]["model"]
    model = found_by_name(package, conf["name"])({**conf, "weights": weights}).eval()
    image0, image1 = images()
    found = model({"image0": image0, "image1": image1})
    swapped = load_matcher(weights, max_side=None).match(image1, image0, top_k=2000)
    equal(found, Matches(swapped.keypoints1, swapped.keypoints0, swapped.scores))
    assert found["mconf"] is found["scores"]
    assert len(list(model.parameters())) > 0
    monkeypatch.delitem(sys.modules, f"{package}.matchers.{conf['name']}")


@pytest.mark.parametrize(("limit", "expected"), [(5, 5), (-1, None), (None, None)])
def test_hlocs_limit_of_matches_holds(
    monkeypatch: pytest.MonkeyPatch, weights: str, limit: int | None, expected: int | None
) -> None:
    install(monkeypatch, "hloc.utils.base_model", BaseModel=HlocModel)
    model = hloc.register()({"weights": weights, "max_keypoints": limit})
    image0, image1 = images()
    count = len(model({"image0": image0, "image1": image1})["scores"])
    assert count == expected if expected else count > 10
    monkeypatch.delitem(sys.modules, "hloc.matchers.quadmatch")


def test_vismatch_gets_the_matches_of_color_pictures(
    monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    install(monkeypatch, "vismatch", BaseMatcher=VismatchModel)
    matcher = quadmatch(weights=weights, ransac_iters=7)
    assert (matcher.device, matcher.settings) == ("cpu", {"ransac_iters": 7})
    color0, color1 = (image[0].expand(3, -1, -1) for image in images())
    found = matcher(color0, color1)
    expected = load_matcher(weights, device="cpu").match(color0, color1)
    names = {"keypoints0": "matched_kpts0", "keypoints1": "matched_kpts1"}
    names["scores"] = "matched_confidences"
    equal({name: found[theirs] for name, theirs in names.items()}, expected)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hloc", "vismatch"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match="E210 hloc"):
        hloc.register()
    with pytest.raises(UsageError, match="E210 vismatch"):
        quadmatch()


@torch.no_grad()
def test_the_three_steps_of_transformers_give_float_keypoints_of_the_images() -> None:
    model, processor = tiny_model().eval(), Processor((64, 96))
    # Twice as large by repeated pixels: a pixel's center at c lies at 2 c + 0.5.
    small = [noise(64, 96, seed) for seed in (0, 1, 2)]
    large = [np.kron(image, np.ones((2, 2), np.float32)) for image in small]
    inputs = processor([[large[0], small[1]], [small[2], small[2]]])
    outputs = KeypointMatcher(model)(**inputs)
    sizes = [[(128, 192), (64, 96)], [(64, 96), (64, 96)]]
    found = processor.post_process_keypoint_matching(outputs, sizes)
    gray = inputs["pixel_values"]
    plain = KorniaMatcher(model)({"image0": gray[:, 0], "image1": gray[:, 1]})
    assert [set(pair) for pair in found] == [{"keypoints0", "keypoints1", "matching_scores"}] * 2
    for b, scale in enumerate((2, 1)):
        of_pair = plain["batch_indexes"] == b
        points0 = (plain["keypoints0"][of_pair] + 0.5) * scale - 0.5
        assert len(found[b]["matching_scores"]) > 10
        torch.testing.assert_close(found[b]["keypoints0"], points0, atol=1e-3, rtol=0)
        torch.testing.assert_close(
            found[b]["keypoints1"], plain["keypoints1"][of_pair], atol=1e-3, rtol=0
        )
        torch.testing.assert_close(found[b]["matching_scores"], plain["confidence"][of_pair])


@torch.no_grad()
def test_transformers_own_step_would_give_the_nearest_pixels() -> None:
    outputs = KeypointMatcher(tiny_model().eval())(torch.rand(1, 2, 3, 64, 64))
    sizes = torch.tensor([[[64, 64], [64, 64]]])
    theirs = (outputs.keypoints * sizes.flip(-1).reshape(-1, 2, 1, 2)).to(torch.int32)[0, 1]
    ours = Processor().post_process_keypoint_matching(outputs, sizes)[0]["keypoints1"]
    inside = (ours > -0.5).all(dim=1)
    assert inside.sum() > 10
    assert (theirs[inside] - ours[inside]).abs().max() <= 0.5 + 1e-4


@torch.no_grad()
def test_a_threshold_and_shorter_pairs_leave_nothing_behind() -> None:
    image = noise(64, 64)
    inputs = Processor((64, 64))([[image, image], [image, np.zeros((64, 64), np.float32)]])
    outputs = KeypointMatcher(tiny_model().eval())(**inputs)
    assert outputs.matches.shape == outputs.matching_scores.shape == outputs.keypoints.shape[:3]
    sizes = [[(64, 64), (64, 64)]] * 2
    limit = float(outputs.matching_scores[0, 0].median())
    kept = Processor().post_process_keypoint_matching(outputs, sizes, threshold=limit)
    assert all((pair["matching_scores"] > limit).all() for pair in kept)
    with pytest.raises(UsageError, match="E201 target_sizes"):
        Processor().post_process_keypoint_matching(outputs, sizes[:1])
    with pytest.raises(UsageError, match="E201 pixel_values"):
        KeypointMatcher(tiny_model())(torch.zeros(1, 3, 64, 64))
