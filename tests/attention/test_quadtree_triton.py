"""The Triton path of QuadTree attention equals the reference.

Where there is an NVIDIA GPU the kernel is compiled and runs on it; elsewhere Triton's interpreter
runs it on the CPU. `TRITON_INTERPRET=1` asks for the interpreter in any case.
"""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from matcher.attention import quadtree, triton_check
from matcher.attention.pyramid import token_pyramid
from matcher.attention.quadtree import QuadTreeAttention
from matcher.attention.record import AttentionRecorder, Place
from matcher.attention.reference import Pyramids, Step, Variant, attend
from matcher.network.block import LoFTRBlock

if not sys.platform.startswith("linux"):
    pytest.skip("Triton is published for Linux only", allow_module_level=True)

ON_GPU = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
GOLDEN = Path(__file__).parents[1] / "golden" / "quadtree_operators.npz"
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 2e-2}
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="no NVIDIA GPU here")


@pytest.fixture(name="kernel")
def _kernel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the kernel, compiled or interpreted."""
    if not ON_GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    from matcher.attention import triton_kernel

    assert triton_kernel.INTERPRETED != ON_GPU
    return triton_kernel


class Case:
    """Random pyramids of a call: cells are those of the coarsest level."""

    def __init__(
        self,
        topks: tuple[int, ...],
        *,
        batch: int = 1,
        heads: int = 2,
        d: int = 16,
        cells: int = 1,
        key_cells: int = 5,
        masked: bool = False,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        levels = len(topks)
        self.topks = topks
        tokens = [
            torch.randn(batch, heads, n * 4 ** (levels - 1), d, generator=generator).to(dtype)
            for n in (cells, key_cells, key_cells)
        ]
        mask = None
        if masked:
            mask = torch.rand(batch, tokens[1].shape[2], generator=generator) < 0.4
            mask[:, : mask.shape[1] // 3] = False
        self.place(*tokens, mask)

    @classmethod
    def draw(cls, seed: int, dtype: torch.dtype, masked: bool) -> "Case":
        """A case of random sizes."""
        draw = random.Random(seed)
        topks = draw.randint(1, 9), draw.randint(1, 9), draw.randint(1, 9)
        return cls(
            topks,
            batch=draw.randint(1, 2),
            heads=draw.randint(1, 2),
            d=draw.choice([4, 8, 16, 24, 32, 64]),
            cells=draw.randint(1, 2),
            key_cells=draw.randint(1, 12),
            masked=masked,
            dtype=dtype,
            seed=seed,
        )

    def place(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
        """Take these tokens of the finest level."""
        levels = len(self.topks)
        masks = [None if mask is None else mask.to(DEVICE)]
        for _ in range(levels - 1):
            masks.append(None if masks[-1] is None else masks[-1].unflatten(1, (-1, 4)).any(dim=2))
        masks = masks[::-1]
        self.pyramids = Pyramids(
            token_pyramid(q.to(DEVICE), [None] * levels),
            token_pyramid(k.to(DEVICE), masks),
            token_pyramid(v.to(DEVICE), masks),
            masks,
        )

    def reference(self, variant: Variant) -> list[Tensor]:
        """Messages of the reference in fp32 on the same, already rounded tokens.

        It starts from the coarse keys that the tokens' own dtype selects.
        """
        coarsest, *finer = zip(*self.pyramids, strict=True)
        step = attend(*coarsest, None, self.topks[0], variant)
        messages = [step.message.float()]
        for (*tokens, mask), topk in zip(finer, (self.topks[1], 0), strict=True):
            step = attend(*(x.float() for x in tokens), mask, step, topk, variant)
            messages.append(step.message)
        return messages

    def largest_error(self, kernel: ModuleType, variant: Variant) -> float:
        """Of the kernel's messages, relative to those of the reference that exceed 1."""
        assert kernel.supports(self.pyramids, self.topks)
        messages = kernel.descend(self.pyramids, self.topks, variant)
        assert all(x.dtype == self.pyramids.queries[0].dtype for x in messages)
        pairs = zip(messages, self.reference(variant), strict=True)
        return max(float(((x - y) / y.abs().clamp(min=1)).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("masked", [False, True])
def test_messages_equal_the_reference(
    kernel: ModuleType, variant: Variant, dtype: torch.dtype, masked: bool
) -> None:
    for seed in range(2):
        case = Case.draw(seed, dtype, masked)
        assert case.largest_error(kernel, variant) <= LIMITS[dtype], f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(LIMITS))
def test_messages_equal_the_reference_on_100_random_shapes(
    kernel: ModuleType, dtype: torch.dtype
) -> None:
    for seed in range(100):
        case = Case.draw(1000 + seed, dtype, masked=seed % 2 == 1)
        error = case.largest_error(kernel, "AB"[seed // 2 % 2])
        assert error <= LIMITS[dtype], f"seed {seed}"


@pytest.mark.parametrize("topks", [(16, 8, 8), (32, 16, 16)])
@pytest.mark.parametrize("variant", ["A", "B"])
def test_the_published_numbers_of_keys_are_supported(
    kernel: ModuleType, topks: tuple[int, ...], variant: Variant
) -> None:
    case = Case(topks, heads=1, d=32, key_cells=40)
    assert case.largest_error(kernel, variant) <= 1e-5


@pytest.mark.parametrize("variant", ["A", "B"])
def test_repeated_keys_give_the_message_of_the_reference(
    kernel: ModuleType, variant: Variant
) -> None:
    case = Case((4, 3, 3), key_cells=6)
    q, k, v = (x[-1] for x in case.pyramids[:3])
    k, v = (x[:, :, :48].repeat(1, 1, 2, 1) for x in (k, v))
    case.place(q, k, v, None)
    assert case.largest_error(kernel, variant) <= 1e-5


def test_of_equal_scores_the_lowest_keys_descend_however_they_are_listed(
    kernel: ModuleType,
) -> None:
    case = Case((3, 5, 5), key_cells=6)
    q, k, v, masks = (x[1:] for x in case.pyramids)
    blocks = torch.tensor([4, 0, 2], device=DEVICE).expand(1, 2, 1, 3)
    lowest = torch.tensor([0, 1, 2, 3, 8], device=DEVICE).expand(1, 2, 4, 5)
    level = Pyramids((torch.zeros_like(q[0]), q[1]), k, v, masks)
    _, message = kernel.descend_blocks(level, blocks, None, 5)
    above = Step(message, lowest, lowest, selected=lowest, parents=lowest)
    expected = attend(q[1], k[1], v[1], None, above, 0, "B").message
    assert (message - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("variant", ["A", "B"])
def test_masked_keys_do_not_count_and_a_query_without_keys_gets_zero(
    kernel: ModuleType, variant: Variant
) -> None:
    case = Case((4, 4, 4), batch=2, heads=1, masked=True)
    q, k, v = (x[-1] for x in case.pyramids[:3])
    mask = case.pyramids.masks[-1]
    assert mask is not None
    mask[1] = False
    k, v = (torch.where(mask[:, None, :, None], x, 1e4) for x in (k, v))
    case.place(q, k, v, mask)
    assert case.largest_error(kernel, variant) <= 1e-5
    messages = kernel.descend(case.pyramids, (4, 4, 4), variant)
    assert all(torch.equal(x[1], torch.zeros_like(x[1])) for x in messages)


def test_what_the_kernel_cannot_do_is_left_to_the_others(kernel: ModuleType) -> None:
    plain = Case((4, 4, 4))
    pyramids = plain.pyramids
    assert kernel.supports(pyramids, plain.topks)
    assert kernel.supports(pyramids, (4, 4, 99))
    assert not kernel.supports(pyramids, (4, 0, 4))
    mixed = pyramids._replace(keys=[x.half() for x in pyramids.keys])
    assert not kernel.supports(mixed, plain.topks)
    learning = pyramids._replace(values=[x.clone().requires_grad_() for x in pyramids.values])
    assert not kernel.supports(learning, plain.topks)
    with torch.no_grad():
        assert kernel.supports(learning, plain.topks)
    for other in (
        Case((4, 4)),
        Case((4, 4, 4, 4)),
        Case((4, 4, 4), dtype=torch.float64),
        Case((4, 4, 4), d=65),
        Case((65, 4, 4), d=32, key_cells=65),
        Case((16, 17, 4), d=32, key_cells=16),
    ):
        assert not kernel.supports(other.pyramids, other.topks)


class Learned(NamedTuple):
    """Messages of a descent, and gradients of all its tokens."""

    messages: list[Tensor]
    gradients: Sequence[Tensor]

    @classmethod
    def run(cls, case: Case, descend: Callable[[Pyramids], list[Tensor]], wide: bool) -> "Learned":
        """Forward and backward on the tokens of a case, in fp32 where `wide`."""
        levels = [
            [(x.float() if wide else x.clone()).requires_grad_() for x in level]
            for level in case.pyramids[:3]
        ]
        messages = descend(Pyramids(*levels, case.pyramids.masks))
        pulls = [torch.linspace(-1, 1, x.numel(), device=DEVICE).view_as(x).to(x) for x in messages]
        # Not the coarsest level, which no kernel works off.
        tokens = [x for level in levels for x in level[1:]]
        total = sum((x * pull).sum() for x, pull in zip(messages[1:], pulls[1:], strict=True))
        return cls(messages, torch.autograd.grad(total, tokens))

    def largest_error(self, expected: "Learned") -> float:
        """Relative to the largest element of each expected tensor where that exceeds 1."""
        pairs = [
            *zip(self.messages, expected.messages, strict=True),
            *zip(self.gradients, expected.gradients, strict=True),
        ]
        return max(
            float((x - y).detach().abs().max() / y.detach().abs().max().clamp(min=1))
            for x, y in pairs
        )


def learn(seed: int, dtype: torch.dtype, variant: Variant, levels: int) -> float:
    """Largest error of messages and gradients on tokens of random sizes."""
    from matcher.attention import triton_levels

    draw = random.Random(seed)
    case = Case(
        tuple(draw.randint(1, 9) for _ in range(levels)),
        d=draw.choice([4, 16, 24]),
        heads=draw.randint(1, 2),
        key_cells=draw.randint(1, 12 // levels),
        masked=draw.random() < 0.5,
        dtype=dtype,
        seed=seed,
    )
    assert triton_levels.supports(case.pyramids, case.topks)

    def as_reference(pyramids: Pyramids) -> list[Tensor]:
        # It starts from the coarse keys that the tokens' own dtype selects.
        coarsest, *finer = zip(*pyramids, strict=True)
        first = [x.to(dtype) for x in coarsest[:3]]
        step = attend(*first, coarsest[3], None, case.topks[0], variant)
        messages = [step.message.float()]
        for level, topk in zip(finer, [*case.topks[1:-1], 0], strict=True):
            step = attend(*level, step, topk, variant)
            messages.append(step.message)
        return messages

    ours = Learned.run(case, lambda p: triton_levels.descend(p, case.topks, variant), wide=False)
    return ours.largest_error(Learned.run(case, as_reference, wide=True))


@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("levels", [2, 3])
def test_messages_and_gradients_of_levels_equal_the_reference(
    kernel: ModuleType, dtype: torch.dtype, variant: Variant, levels: int
) -> None:
    assert learn(levels, dtype, variant, levels) <= LIMITS[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize(("levels", "count"), [(2, 26), (3, 18), (4, 6)])
@pytest.mark.parametrize("dtype", list(LIMITS))
def test_messages_and_gradients_of_levels_equal_the_reference_on_100_random_shapes(
    kernel: ModuleType, dtype: torch.dtype, levels: int, count: int, variant: Variant
) -> None:
    for seed in range(count):
        assert learn(2000 + seed, dtype, variant, levels) <= LIMITS[dtype], f"seed {seed}"


def test_a_query_without_keys_learns_nothing(kernel: ModuleType) -> None:
    from matcher.attention import triton_levels

    case = Case((2, 2), masked=True)
    q, k, v = (x[-1] for x in case.pyramids[:3])
    case.place(q, k, v, torch.zeros(1, k.shape[2], dtype=torch.bool))
    found = Learned.run(case, lambda p: triton_levels.descend(p, (2, 2), "B"), wide=False)
    assert all(x.abs().max() == 0 for x in [*found.messages, *found.gradients])


def test_levels_take_what_the_fused_kernel_does_not(kernel: ModuleType) -> None:
    from matcher.attention import triton_levels

    for case in (Case((4, 4)), Case((4, 4, 4, 4)), Case((20, 28, 8), d=32, key_cells=20)):
        assert not kernel.supports(case.pyramids, case.topks)
        assert triton_levels.supports(case.pyramids, case.topks)
    for case in (Case((4,)), Case((4, 4), dtype=torch.float64), Case((4, 4), d=65)):
        assert not triton_levels.supports(case.pyramids, case.topks)


def test_gradients_that_must_be_the_same_every_time_are_left_to_the_reference(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matcher.attention import triton_levels

    case = Case((4, 4))
    learning = case.pyramids._replace(keys=[x.clone().requires_grad_() for x in case.pyramids.keys])
    assert triton_levels.supports(learning, case.topks)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not triton_levels.supports(learning, case.topks)
    assert triton_levels.supports(case.pyramids, case.topks)


def golden_attention(name: str) -> tuple[QuadTreeAttention, list[Tensor], Tensor]:
    golden = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN).items()}
    heads = int(golden["num_heads"])
    attention = QuadTreeAttention(heads, golden["topks"].tolist(), name)
    if attention.level_weights is not None:
        attention.level_weights.data = golden[f"{name}.weight"]
    maps = [golden[key].to(DEVICE) for key in ("query", "key", "value")]
    expected = golden[f"{name}.message"].flatten(2).transpose(1, 2).reshape(maps[0].shape)
    return attention.to(DEVICE), maps, expected.to(DEVICE)


@pytest.mark.parametrize("name", [pytest.param("A", marks=pytest.mark.slow), "B"])
def test_the_published_operator_is_reproduced_through_the_dispatch(
    name: str, kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention, maps, expected = golden_attention(name)
    calls = count_calls(kernel, monkeypatch)
    with torch.no_grad():
        message = attention(*maps)
    assert len(calls) == 1
    assert (message - expected).abs().max() <= 1e-5


def test_gradients_are_asked_of_the_levels_and_pictures_of_neither(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matcher.attention import triton_levels

    attention = QuadTreeAttention(1, (2, 2, 2)).to(DEVICE)
    x = torch.randn(1, 8, 8, 8, device=DEVICE, requires_grad=True)
    fused, levels = (count_calls(module, monkeypatch) for module in (kernel, triton_levels))
    attention(x, x, x).sum().backward()
    assert (len(fused), len(levels)) == (0, 1)
    with torch.no_grad():
        attention.levels(x, x, x)
    assert (len(fused), len(levels)) == (0, 1)


def test_a_recorder_leaves_the_kernel_at_work(
    kernel: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = LoFTRBlock(8, QuadTreeAttention(1, (2, 2, 2))).to(DEVICE)
    x = torch.randn(1, 8, 8, 8, device=DEVICE)
    calls = count_calls(kernel, monkeypatch)
    with torch.no_grad(), AttentionRecorder([block]) as recorder:
        block(x, x, place=Place(0, ("0",)))
    assert len(calls) == len(recorder.calls) == 1


def count_calls(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows by one element with every descent of the kernel."""
    calls: list[None] = []
    descend = kernel.descend

    def counting(*args: object) -> list[Tensor]:
        calls.append(None)
        return descend(*args)

    monkeypatch.setattr(kernel, "descend", counting)
    return calls


def test_triton_stays_out_of_descents_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delitem(sys.modules, "matcher.attention.triton_kernel", raising=False)
    q, k, v, masks = Case((2, 2, 2)).pyramids
    pyramids = Pyramids(*([x.cpu() for x in level] for level in (q, k, v)), masks)
    quadtree.descend(pyramids, (2, 2, 2), "B")
    assert "matcher.attention.triton_kernel" not in sys.modules


@pytest.mark.parametrize(
    ("check", "reason"),
    [(lambda device: 0.5, "off by 5.0e-01"), (lambda device: 1 / 0, "ZeroDivisionError")],
)
def test_a_gpu_where_the_kernel_fails_gets_plain_operators_and_a_warning(
    check: object, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(triton_check, "_check_error", check)
    with pytest.warns(UserWarning, match=reason):
        assert not triton_check._works_on.__wrapped__(torch.device("cuda"))


def test_a_gpu_older_than_triton_supports_gets_plain_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not triton_check._works_on.__wrapped__(torch.device("cuda"))


def test_the_check_before_first_use_passes(kernel: ModuleType) -> None:
    assert triton_check._check_error(DEVICE) <= 1e-4
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert triton_check._check_error(DEVICE) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 86, 90, 120])
def test_the_kernel_compiles_for_nvidia_gpus_and_keeps_to_registers(capability: int) -> None:
    program = Path(__file__).parents[1] / "helpers" / "compile_quadtree_triton.py"
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(program), str(capability)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=program.parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = [line.split() for line in done.stdout.splitlines()]
    assert len(reports) == 12 + 16
    for *_, stack, shared in reports:
        assert int(stack) == 0
        assert int(shared) <= 48 << 10


@needs_gpu
@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("variant", ["A", "B"])
@pytest.mark.parametrize("topks", [(16, 8, 8), (32, 16, 16)])
def test_full_size_on_the_gpu(
    kernel: ModuleType, dtype: torch.dtype, variant: Variant, topks: tuple[int, ...]
) -> None:
    """Keys whose probabilities differ by rounding may swap places: a few messages in 10,000."""
    case = Case(topks, batch=2, heads=8, d=32, cells=300, key_cells=300, dtype=dtype, masked=True)
    messages = kernel.descend(case.pyramids, topks, variant)
    for x, y in zip(messages, case.reference(variant), strict=True):
        wrong = ((x - y).abs() > LIMITS[dtype]).any(dim=-1)
        assert wrong.float().mean() <= 1e-3


@needs_gpu
def test_the_check_before_first_use_lets_this_gpu_use_the_kernel() -> None:
    assert triton_check._works_on(DEVICE)
