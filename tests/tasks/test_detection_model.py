"""RetinaNet as a network: published names, any size, batches of several, weights."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from matcher.errors import CheckpointError, UsageError
from matcher.network.pyramid import NAMES, PyramidConfig, build_pyramid
from matcher.tasks.detection.config import PUBLISHED, DetectorConfig
from matcher.tasks.detection.decoding import find_boxes
from matcher.tasks.detection.fpn import FeaturePyramid
from matcher.tasks.detection.model import RetinaNet
from matcher.tasks.detection.preprocess import to_batch
from matcher.tasks.detection.structures import DetectionBatch
from matcher.tasks.detection.weights import (
    load_backbone,
    load_detector,
    load_published,
    save_detector,
)
from matcher.weights.pyramid import load_published as load_published_pyramid
from matcher.weights.pyramid import save_pyramid
from tests.helpers.annotated import BACKBONE, SMALL


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(0)
    network = RetinaNet(SMALL).eval().requires_grad_(False)
    for parameter in network.bbox_head.parameters():
        parameter.mul_(8)  # So that anchors differ by more than rounding.
    return network


def picture(height: int, width: int, seed: int) -> DetectionBatch:
    rng = np.random.default_rng(seed)
    return to_batch(rng.integers(0, 255, (height, width, 3)).astype(np.uint8))


def test_the_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = RetinaNet(DetectorConfig()).state_dict()
    neck = {f"neck.lateral_convs.{i}.conv" for i in range(3)}
    neck |= {f"neck.fpn_convs.{i}.conv" for i in range(5)}
    head = {f"bbox_head.{t}_convs.{i}.conv" for t in ("cls", "reg") for i in range(4)}
    head |= {"bbox_head.retina_cls", "bbox_head.retina_reg"}
    expected = {f"{name}.{part}" for name in neck | head for part in ("weight", "bias")}
    beside = {name for name in state if not name.startswith("backbone.")}
    assert beside == expected
    with torch.device("meta"):
        pyramid = build_pyramid("quadtree_b0_dense").state_dict()
    assert {name.removeprefix("backbone.") for name in state.keys() - beside} == pyramid.keys()
    assert state["bbox_head.retina_cls.weight"].shape == (720, 256, 3, 3)
    assert state["bbox_head.retina_reg.weight"].shape == (36, 256, 3, 3)
    assert state["neck.fpn_convs.3.conv.weight"].shape == (256, 256, 3, 3)
    assert state["neck.lateral_convs.0.conv.weight"].shape == (256, 64, 1, 1)


def test_published_detectors_are_the_dense_pyramids() -> None:
    assert sorted(PUBLISHED) == [f"quadtree_b{i}_dense" for i in range(5)]
    backbone = PUBLISHED["quadtree_b2_dense"].backbone
    assert (backbone.activation, backbone.topk, backbone.drop_path) == ("relu", 32, 0.1)
    assert backbone == NAMES["quadtree_b2_dense"]


def test_the_first_score_is_a_hundredth() -> None:
    torch.manual_seed(0)
    scores = RetinaNet(SMALL).bbox_head.retina_cls.bias.sigmoid()
    assert scores.tolist() == pytest.approx([0.01] * 18)


def test_there_is_no_relu_before_p7() -> None:
    neck = FeaturePyramid((2, 3, 4), 5)
    maps = [torch.randn(1, c, n, n) for c, n in ((2, 16), (3, 8), (4, 4))]
    p3, p4, p5, p6, p7 = neck(maps, [None] * 5)
    assert [x.shape[-1] for x in (p3, p4, p5, p6, p7)] == [16, 8, 4, 2, 1]
    torch.testing.assert_close(p6, neck.fpn_convs[3](maps[2]))
    torch.testing.assert_close(p7, neck.fpn_convs[4](p6))
    assert not torch.allclose(p7, neck.fpn_convs[4](p6.relu()))


def test_coarser_maps_are_doubled_to_the_size_of_the_finer() -> None:
    neck = FeaturePyramid((2, 3, 4), 5)
    maps = [torch.randn(1, c, h, w) for c, h, w in ((2, 9, 13), (3, 5, 7), (4, 3, 4))]
    first, second, third = (conv(x) for conv, x in zip(neck.lateral_convs, maps, strict=True))
    second = second + torch.nn.functional.interpolate(third, size=(5, 7), mode="nearest")
    first = first + torch.nn.functional.interpolate(second, size=(9, 13), mode="nearest")
    p3, p4, *_ = neck(maps, [None] * 5)
    torch.testing.assert_close(p3, neck.fpn_convs[0](first))
    torch.testing.assert_close(p4, neck.fpn_convs[1](second))


@pytest.mark.parametrize("size", [(32, 32), (97, 61), (64, 130)])
def test_any_size_has_nine_anchors_a_cell(model: RetinaNet, size: tuple[int, int]) -> None:
    output = model(picture(*size, seed=1).images)
    cells = [-(-size[0] // s) * -(-size[1] // s) for s in (8, 16, 32, 64, 128)]
    assert [x.shape for x in output.logits] == [(1, 9 * n, 2) for n in cells]
    assert [x.shape for x in output.deltas] == [(1, 9 * n, 4) for n in cells]
    assert [x.shape for x in output.anchors] == [(9 * n, 4) for n in cells]


def test_channels_of_the_head_are_anchor_by_anchor(model: RetinaNet) -> None:
    x = torch.randn(1, SMALL.channels, 3, 5)
    logits, deltas = model.bbox_head(x, None)
    for name, values, width in (("cls", logits, 2), ("reg", deltas, 4)):
        tower = getattr(model.bbox_head, f"{name}_convs")[0](x).relu()
        plain = getattr(model.bbox_head, f"retina_{name}")(tower)
        # Row 2, column 3, anchor 7.
        expected = plain[0, 7 * width : 8 * width, 2, 3]
        torch.testing.assert_close(values[0, (2 * 5 + 3) * 9 + 7], expected)


def test_an_image_in_a_batch_is_found_as_alone(model: RetinaNet) -> None:
    items = [picture(50, 90, 2), picture(96, 64, 3), picture(33, 40, 4)]
    batch = DetectionBatch.collate(items)
    assert batch.images.shape == (3, 3, 96, 90)
    sizes = [(50, 90), (96, 64), (33, 40)]
    together = find_boxes(model(batch.images, batch.mask), sizes, 0.0)
    for item, size, found in zip(items, sizes, together, strict=True):
        (alone,) = find_boxes(model(item.images), [size], 0.0)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.boxes, alone.boxes, atol=1e-2, rtol=1e-4)


def test_padding_has_no_influence(model: RetinaNet) -> None:
    item = picture(50, 90, 5)
    batch = DetectionBatch.collate([item, picture(96, 128, 6)])
    other = batch.images.clone()
    other[0, :, 50:] = 7.0
    first, second = model(batch.images, batch.mask), model(other, batch.mask)
    for a, b in zip(first.logits, second.logits, strict=True):
        assert torch.equal(a, b)


def test_the_detection_form_gives_four_maps_by_published_names(tmp_path: Path) -> None:
    config = PyramidConfig(
        dims=(16, 32, 40, 64), depths=(1, 1, 2, 1), mlp_ratios=(8, 8, 4, 4),
        activation="relu", topk=32, classes=0,
    )  # fmt: skip
    torch.manual_seed(1)
    network = build_pyramid(config).eval()
    state = {f"backbone.{name}": tensor for name, tensor in network.state_dict().items()}
    state |= {
        "neck.lateral_convs.0.conv.weight": torch.ones(1),
        "bbox_head.retina_cls.bias": torch.ones(1),
    }
    torch.save({"meta": {"epoch": 12}, "state_dict": state, "optimizer": {}}, tmp_path / "det.pth")
    loaded = load_published_pyramid(tmp_path / "det.pth", config)
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        maps, expected = loaded.features(image), network.features(image)
    assert [tuple(x.shape[1:]) for x in maps] == [
        (16, 24, 32),
        (32, 12, 16),
        (40, 6, 8),
        (64, 3, 4),
    ]
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    gelu = build_pyramid(replace(config, activation="gelu")).eval()
    gelu.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert float((gelu.features(image)[0] - maps[0]).abs().max()) > 1e-3


def published(path: Path, state: dict[str, Tensor]) -> Path:
    content = {"meta": {"config": "x"}, "state_dict": state, "optimizer": {"lr": 1e-4}}
    torch.save({**content, "args": argparse.Namespace(a=1)}, path)
    return path


def test_a_published_file_loads_strictly(tmp_path: Path, model: RetinaNet) -> None:
    state = model.state_dict()
    loaded = load_published(published(tmp_path / "a.pth", state), SMALL)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in state.items())
    image = picture(64, 64, 7).images
    assert torch.equal(loaded(image).logits[0], model(image).logits[0])
    less = {k: v for k, v in state.items() if k != "neck.fpn_convs.4.conv.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing: neck\.fpn_convs\.4\.conv\.bias"):
        load_published(published(tmp_path / "b.pth", less), SMALL)
    more = {**state, "bbox_head.other": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"1 unexpected: bbox_head\.other"):
        load_published(published(tmp_path / "c.pth", more), SMALL)
    with pytest.raises(UsageError, match="quadtree_b0_dense"):
        load_published(tmp_path / "a.pth", "quadtree_b0")


def test_own_weights_keep_their_labels(tmp_path: Path, model: RetinaNet) -> None:
    save_detector(tmp_path / "a.safetensors", model)
    loaded = load_detector(tmp_path / "a.safetensors")
    assert loaded.config == SMALL
    image = picture(40, 70, 8).images
    assert torch.equal(loaded(image).deltas[1], model(image).deltas[1])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_pyramid(tmp_path / "p.safetensors", build_pyramid(BACKBONE))
    with pytest.raises(CheckpointError, match="weights of the model 'pyramid'"):
        load_detector(tmp_path / "p.safetensors")


def test_a_backbone_starts_from_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(2)
    classifier = build_pyramid(replace(BACKBONE, classes=7, drop_path=0.3))
    save_pyramid(tmp_path / "c.safetensors", classifier)
    detector = RetinaNet(SMALL)
    load_backbone(tmp_path / "c.safetensors", detector)
    name = "block3.0.attn.q_proj.weight"
    assert torch.equal(detector.backbone.state_dict()[name], classifier.state_dict()[name])
    other = RetinaNet(replace(SMALL, backbone=replace(BACKBONE, topk=5)))
    with pytest.raises(CheckpointError, match="another pyramid"):
        load_backbone(tmp_path / "c.safetensors", other)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"labels": ("a", "a")}, "model.labels"),
        ({"shorter": 900, "longer": 800}, "model.longer"),
        ({"backbone": PyramidConfig()}, "model.backbone.classes"),
        ({"anchor_size": 0.0}, "model.anchor_size"),
    ],
)
def test_a_detector_that_cannot_be_is_told_in_a_line(values: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        DetectorConfig(**values)
    assert "\n" not in str(caught.value)
