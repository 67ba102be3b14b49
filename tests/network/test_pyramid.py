"""The pyramid: the published numbers, any size, exact masks, and what its configuration refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from matcher.attention import cpu
from matcher.errors import UsageError
from matcher.network.pyramid import NAMES, Pyramid, PyramidConfig, build_pyramid
from matcher.network.pyramid.attention import MapNorm
from matcher.network.pyramid.model import PatchEmbedding
from tests.helpers.pyramids import SMALL, golden_model, golden_numbers

PARITY = 1e-4
KINDS = ("quadtree", "linear", "full", "pvt", "swin", "focal")


def small(**changes: Any) -> Pyramid:
    torch.manual_seed(0)
    model = Pyramid(replace(SMALL, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def image(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("path", ["fast", "fast with gradients", "reference"])
def test_logits_equal_the_published_ones(
    variant: Literal["a", "b"], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = cpu.descend
    monkeypatch.setattr(cpu, "descend", lambda *a: calls.append(a) or original(*a))
    if path == "reference":
        monkeypatch.setattr(cpu, "supports", lambda pyramids: False)
    x, expected = golden_numbers(variant)
    with torch.set_grad_enabled(path != "fast"):
        logits = golden_model(variant)(x)
    assert bool(calls) == (path != "reference")
    assert difference([logits], [expected]) < PARITY


@pytest.mark.parametrize(
    ("variant", "change"),
    [("b", {"activation": "relu"}), ("b", {"topk": 32}), ("a", {"drop_best": False})],
)
def test_another_variant_misses_the_published_logits(
    variant: Literal["a", "b"], change: dict[str, Any]
) -> None:
    x, expected = golden_numbers(variant)
    with torch.no_grad():
        logits = golden_model(variant, **change)(x)
    assert difference([logits], [expected]) > 100 * PARITY


def test_gradients_equal_those_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = golden_numbers("b")
    gradients = []
    for fast in (True, False):
        if not fast:
            monkeypatch.setattr(cpu, "supports", lambda pyramids: False)
        model = golden_model("b").requires_grad_()
        model(x).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    scale = max(float(g.abs().max()) for g in gradients[1])
    assert difference(*gradients) < 1e-5 * scale


@pytest.mark.parametrize(
    ("name", "thousands", "tensors"),
    [
        ("quadtree_b0", 3_589, 314),
        ("quadtree_b1", 13_658, 314),
        ("quadtree_b2", 25_072, 592),
        ("quadtree_b3", 46_265, 964),
        ("quadtree_b4", 64_197, 1407),
        ("quadtree_a_b0", 3_198, 170),
    ],
)
def test_parameters_are_those_of_the_published_models(
    name: str, thousands: int, tensors: int
) -> None:
    with torch.device("meta"):
        state = build_pyramid(name).state_dict()
    assert (round(sum(t.numel() for t in state.values()) / 1e3), len(state)) == (thousands, tensors)


@pytest.mark.parametrize(("name", "billions"), [("quadtree_b0", 0.62), ("quadtree_b2", 4.46)])
def test_multiply_adds_are_those_of_the_published_models(name: str, billions: float) -> None:
    model = build_pyramid(name).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(billions, rel=0.02)


def test_names_tell_classifiers_and_dense_backbones_apart() -> None:
    for size in ("b0", "b1", "b2", "b3", "b4"):
        classifier, dense = NAMES[f"quadtree_{size}"], NAMES[f"quadtree_{size}_dense"]
        assert (classifier.activation, classifier.topk) == ("gelu", 8)
        assert (dense.activation, dense.topk) == ("relu", 32)
        assert classifier.dims == dense.dims
    assert NAMES["quadtree_a_b0"].drop_best


def test_normalizations_have_the_published_epsilon() -> None:
    modules = list(small().modules())
    embeddings = [m.norm for m in modules if isinstance(m, PatchEmbedding)]
    others = [m for m in modules if isinstance(m, nn.LayerNorm) and m not in embeddings]
    assert {m.eps for m in embeddings} == {1e-5}
    assert {m.eps for m in others} == {1e-6}
    assert {m.eps for m in modules if isinstance(m, MapNorm)} == {1e-5}


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("size", [(100, 130), (32, 32), (17, 5), (1, 1)])
def test_any_size_gives_maps_of_four_scales(
    attention: Literal["quadtree"], size: tuple[int, int]
) -> None:
    model = small(attention=attention, window=4)
    with torch.no_grad():
        maps = model.features(image(*size))
    expected = [(-(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)]
    assert [tuple(m.shape[-2:]) for m in maps] == expected
    assert all(torch.isfinite(m).all() for m in maps)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("variant", ["A", "B"])
def test_what_is_masked_has_no_influence(
    attention: Literal["quadtree"], variant: Literal["A", "B"]
) -> None:
    model = small(attention=attention, variant=variant, window=4)
    x, mask = image(96, 160), torch.zeros(2, 96, 160, dtype=torch.bool)
    mask[0, :70, :100] = True
    mask[1, :96, :61] = True
    with torch.no_grad():
        maps = model.features(x, mask)
        others = model.features(torch.where(mask[:, None], x, image(96, 160, seed=1)), mask)
        logits = model(x, mask)
    assert difference(maps, others) == 0.0
    assert all(not m[0, :, -1, -1].any() for m in maps)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("attention", KINDS)
def test_what_is_computed_in_padded_cells_has_no_influence(
    attention: Literal["quadtree"],
) -> None:
    """Pixels outside are zeroed at the entry, so this looks at the maps of every stage."""
    model = small(attention=attention, window=4)
    mask = torch.zeros(2, 24, 32, dtype=torch.bool)
    mask[:, :13, :19] = True
    for stage in range(4):
        width = model.config.dims[stage]
        tokens = torch.randn(2, 24, 32, width, generator=torch.Generator().manual_seed(stage))
        other = torch.where(mask[..., None], tokens, 7 * tokens + 3)
        with torch.no_grad():
            for block in model.get_submodule(f"block{stage + 1}").children():
                changed = (block(tokens, mask) - block(other, mask))[mask]
                assert not changed.any()


@pytest.mark.parametrize("attention", KINDS)
def test_a_mask_of_ones_is_no_mask(attention: Literal["quadtree"]) -> None:
    model = small(attention=attention, window=4)
    x = image(96, 128)
    with torch.no_grad():
        everywhere = model.features(x, torch.ones(2, 96, 128, dtype=torch.bool))
        assert difference(model.features(x), everywhere) < 2e-6


def test_an_image_is_the_same_whatever_it_is_padded_to() -> None:
    model = golden_model("b")
    x, expected = golden_numbers("b")
    mask = torch.zeros(2, 128, 224, dtype=torch.bool)
    mask[:, :96, :128] = True
    padded = F.pad(x, (0, 96, 0, 32), value=5.0)
    with torch.no_grad():
        assert difference([model(padded, mask)], [expected]) < PARITY


def test_the_masked_normalization_is_that_of_pytorch_on_what_is_valid() -> None:
    norm = MapNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 * torch.randn(2, 6, 8, 10) + 1
    mask = torch.zeros(2, 8, 10, dtype=torch.bool)
    mask[:, :5, :7] = True
    out = norm(x, mask)
    torch.testing.assert_close(out[:, :, :5, :7], norm(x[:, :, :5, :7]), atol=1e-6, rtol=1e-5)
    assert not out[:, :, 5:].any()
    torch.testing.assert_close(norm(x, torch.ones_like(mask)), norm(x), atol=1e-6, rtol=1e-5)


def test_drop_path_rises_over_the_blocks_and_keeps_the_mean() -> None:
    model = Pyramid(replace(SMALL, drop_path=0.4))
    blocks = [b for i in range(1, 5) for b in model.get_submodule(f"block{i}").children()]
    assert [b.drop for b in blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    torch.manual_seed(0)
    kept = blocks[-1].train()._kept(torch.ones(4000, 1, 1, 1))
    assert float(kept.mean()) == pytest.approx(1.0, abs=0.05)
    assert sorted(set(kept.flatten().tolist())) == pytest.approx([0.0, 1 / 0.6])
    assert torch.equal(blocks[-1].eval()._kept(torch.ones(3, 1, 1, 1)), torch.ones(3, 1, 1, 1))


@pytest.mark.parametrize(
    "change",
    [{"heads": (3, 2, 5, 8)}, {"neighbors": 2}, {"dims": (8, 8, 8)}, {"activation": "tanh"}],
)
def test_a_configuration_that_cannot_work_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"E201 pyramid\."):
        PyramidConfig(**change)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="E201 model: got 'quadtree_b9'; expected one of quad"):
        build_pyramid("quadtree_b9")


def test_a_pyramid_without_a_head_says_so() -> None:
    with pytest.raises(ValueError, match="head"):
        small(classes=0)(image(32, 32))
