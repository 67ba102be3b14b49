"""Files of pyramids: published ones by family, and our own; strict, and told what does not fit."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from matcher.errors import CheckpointError, UsageError
from matcher.network.pyramid import NAMES, Pyramid, build_pyramid
from matcher.weights.pyramid import load_published, load_pyramid, read_published, save_pyramid
from tests.helpers.pyramids import GOLDEN, SMALL, golden_config


def state(name: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_pyramid(name).state_dict()


def test_a_published_file_with_training_state_loads(tmp_path: Path) -> None:
    tensors = state("quadtree_b0")
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"model": wrapped}, tmp_path / "b0.pth")
    load_published(tmp_path / "b0.pth", "quadtree_b0")
    content = {"model": tensors, "optimizer": {"state": {}}, "epoch": 299, "args": Namespace(a=1)}
    torch.save(content, tmp_path / "b0.pth")
    model = load_published(tmp_path / "b0.pth", "quadtree_b0")
    assert torch.equal(model.state_dict()["head.weight"], tensors["head.weight"])
    assert not model.training


@pytest.mark.parametrize("head", ["bbox_head.retina_cls.weight", "decode_head.conv_seg.weight"])
def test_the_backbone_of_a_detector_or_segmenter_loads(tmp_path: Path, head: str) -> None:
    tensors = state("quadtree_b0_dense")
    beside = {head: torch.ones(2), "neck.lateral_convs.0.conv.weight": torch.ones(2)}
    content = {"meta": {}, "state_dict": {**{f"backbone.{n}": t for n, t in tensors.items()},
                                          **beside}, "optimizer": {}}  # fmt: skip
    torch.save(content, tmp_path / "dense.pth")
    model = load_published(tmp_path / "dense.pth", "quadtree_b0_dense")
    assert model.config == NAMES["quadtree_b0_dense"]
    assert torch.equal(model.state_dict()["norm4.weight"], tensors["norm4.weight"])
    family = "detection" if "bbox" in head else "segmentation"
    assert read_published(tmp_path / "dense.pth").family == family
    with pytest.raises(
        UsageError, match=f"E201 model: .*quadtree_b0_dense for weights of {family}"
    ):
        load_published(tmp_path / "dense.pth", "quadtree_b0")


def test_a_classifier_is_no_dense_backbone() -> None:
    with pytest.raises(UsageError, match="quadtree_b0 for weights of classification"):
        load_published(GOLDEN / "cls_b_small.pth", "quadtree_b0_dense")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"norm1.weight": None}, "1 missing: norm1.weight"),
        ({"extra.weight": torch.ones(1)}, "1 unexpected: extra.weight"),
        ({"norm1.weight": torch.ones(3)}, r"1 of another shape: norm1.weight \(3,\) for \(16,\)"),
        ({"norm1.weight": torch.full((16,), float("nan"))}, "E504"),
    ],
)
def test_what_does_not_fit_is_listed(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    tensors = {**read_published(GOLDEN / "cls_b_small.pth").tensors, **change}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    torch.save({"model": kept}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=told):
        load_published(tmp_path / "x.pth", golden_config("b"))


def test_a_file_of_the_other_variant_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"E502 .*missing: .*py_att.get_vs"):
        load_published(GOLDEN / "cls_a_small.pth", golden_config("b"))


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, labels = Pyramid(SMALL).eval(), ("a", "b", "c", "d", "e")
    save_pyramid(tmp_path / "x.safetensors", model, labels, side=64)
    loaded = load_pyramid(tmp_path / "x.safetensors")
    assert (loaded.labels, loaded.side) == (labels, 64)
    assert loaded.model.config == SMALL
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)


def test_weights_of_a_matcher_are_refused() -> None:
    compact = Path(__file__).parents[2] / "matcher" / "weights" / "compact.safetensors"
    with pytest.raises(CheckpointError, match=r"E502 .*weights of the model 'matcher'"):
        load_pyramid(compact)


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_pyramid(tmp_path / "x.safetensors", Pyramid(SMALL), ("only one",))
    with pytest.raises(CheckpointError, match=r"E508 .*1 labels for 5 classes"):
        load_pyramid(tmp_path / "x.safetensors")
