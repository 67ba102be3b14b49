"""The recorder of attention calls: each layer and direction, however the layers are run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from matcher.attention.record import ACTIVE, AttentionRecorder, Direction
from matcher.config import TransformerConfig
from matcher.network import transformer as transformer_module
from matcher.network.model import build_matcher
from matcher.network.transformer import Transformer, build_transformer
from tests.helpers.models import PUBLISHED_TINY

LAYERS = ("self", "cross", "self", "cross")
DIRECTIONS: dict[str, tuple[Direction, Direction]] = {"self": ("0", "1"), "cross": ("0to1", "1to0")}


def transformer(layers: tuple[str, ...] = LAYERS, **options: str) -> Transformer:
    torch.manual_seed(0)
    return build_transformer(TransformerConfig(layers=layers, heads=2, topks=(2, 2), **options), 8)


def maps(*widths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, 4, width, generator=generator) for width in widths]


class Checkpointed(nn.Module):
    """A block whose activations are computed anew in the backward pass."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block, self.simultaneous = block, block.simultaneous

    def forward(self, *arguments: object) -> Tensor:
        return checkpoint(self.block, *arguments, use_reentrant=False)


def recorded(model: Transformer, x0: Tensor, x1: Tensor) -> AttentionRecorder:
    with AttentionRecorder(model.blocks) as recorder:
        model(x0, x1)
    return recorder


@pytest.mark.parametrize("block", ["quadtree", "loftr"])
@pytest.mark.parametrize("width1", [4, 8])
def test_every_layer_reports_both_directions(block: str, width1: int) -> None:
    attention = "quadtree" if block == "quadtree" else "linear"
    model = transformer(block=block, attention=attention)
    recorder = recorded(model, *maps(4, width1))
    places = [(call.layer, call.direction) for call in recorder.calls]
    assert places == [
        (i, direction) for i, name in enumerate(LAYERS) for direction in DIRECTIONS[name]
    ]
    widths = {"0": (4, 4), "1": (width1, width1), "0to1": (4, width1), "1to0": (width1, 4)}
    for call in recorder.calls:
        assert (call.query.shape[-1], call.key.shape[-1]) == widths[call.direction]
        assert call.attention is model.blocks[call.layer].attention


def test_images_in_one_batch_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x0, x1) = transformer(), maps(4, 4)
    mask = torch.rand(2, 4, 4) > 0.3
    with AttentionRecorder(model.blocks) as together:
        model(x0, x1, mask, None)
    monkeypatch.setattr(transformer_module, "TOGETHER_CELLS", 0)
    with AttentionRecorder(model.blocks) as apart:
        model(x0, x1, mask, None)
    for call, other in zip(together.calls, apart.calls, strict=True):
        assert (call.layer, call.direction) == (other.layer, other.direction)
        torch.testing.assert_close(call.query, other.query)
        torch.testing.assert_close(call.key, other.key)
    first = together.call(1, "1to0")
    assert first.key_mask is not None
    assert torch.equal(first.key_mask, mask)


@pytest.mark.parametrize("width1", [4, 8])
def test_activation_checkpointing_changes_nothing_recorded(width1: int) -> None:
    """Backward runs inside of the context, so that blocks report a second time."""
    model, inputs = transformer(), [x.requires_grad_() for x in maps(4, width1)]
    expected = recorded(model, *inputs).calls
    blocks = list(model.blocks)
    model.blocks = nn.ModuleList([Checkpointed(block) for block in blocks])
    with AttentionRecorder(blocks) as recorder:
        outputs = model(*inputs)
        queries = sum(call.query.square().sum() for call in recorder.calls)
        (queries + sum(x.sum() for x in outputs)).backward()
    assert len(recorder.calls) == len(expected) == 2 * len(LAYERS)
    for call, other in zip(recorder.calls, expected, strict=True):
        assert (call.layer, call.direction) == (other.layer, other.direction)
        assert torch.equal(call.query, other.query)
        assert torch.equal(call.key, other.key)
    assert all(p.grad is not None for p in blocks[0].query.parameters())


def test_layers_in_another_order_keep_their_directions() -> None:
    model, (x0, x1) = transformer(("cross", "self", "cross")), maps(4, 8)
    model.blocks = nn.ModuleList([model.blocks[i] for i in (2, 1, 0)])
    recorder = recorded(model, x0, x1)
    call = recorder.call(0, "1to0")
    assert call.attention is model.blocks[0].attention
    with torch.no_grad():
        tokens = model.blocks[0].norm1(x1.permute(0, 2, 3, 1))
        query = model.blocks[0].query(tokens).permute(0, 3, 1, 2)
    torch.testing.assert_close(call.query, query)
    assert (call.query.shape[-1], call.key.shape[-1]) == (8, 4)


def test_only_the_blocks_that_were_named_are_kept() -> None:
    model = transformer()
    with AttentionRecorder([model.blocks[1]]) as recorder:
        model(*maps(4, 4))
    assert [(c.layer, c.direction) for c in recorder.calls] == [(1, "0to1"), (1, "1to0")]
    with pytest.raises(KeyError):
        recorder.call(3, "0to1")


def test_the_layers_of_the_fine_stage_are_not_mixed_in() -> None:
    torch.manual_seed(0)
    model = build_matcher(PUBLISHED_TINY).eval()
    assert len(model.fine.transformer.blocks) == 2
    with torch.no_grad(), AttentionRecorder(model.transformer.blocks) as recorder:
        model(torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64))
    assert len(recorder.calls) == 4
    assert all(call.query.shape[-2:] == (8, 8) for call in recorder.calls)


def test_a_recorder_changes_no_bit_of_the_result() -> None:
    model, inputs = transformer(), maps(4, 4)
    with torch.no_grad():
        expected = model(*inputs)
        with AttentionRecorder(model.blocks):
            outputs = model(*inputs)
    assert all(map(torch.equal, outputs, expected))


def test_nothing_is_left_on_after_an_error_in_the_context() -> None:
    with pytest.raises(ZeroDivisionError), AttentionRecorder([]):
        raise ZeroDivisionError
    assert ACTIVE.get() is None


def test_another_thread_is_not_recorded() -> None:
    model, (x0, x1) = transformer(), maps(4, 4)
    with ThreadPoolExecutor(1) as thread, AttentionRecorder(model.blocks) as recorder:
        thread.submit(model, x0, x1).result()
        assert recorder.calls == ()
        model(x0, x1)
    assert len(recorder.calls) == 8
