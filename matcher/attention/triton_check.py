"""Whether the Triton kernels of QuadTree attention work here.

Triton comes with PyTorch for CUDA on Linux and is imported for tensors on an NVIDIA GPU only, or
for any under `TRITON_INTERPRET=1`, which runs kernels in Triton's interpreter.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from matcher.attention import reference
from matcher.attention.reference import Pyramids

LEAST_CAPABILITY = (8, 0)
"""Oldest NVIDIA architecture that Triton supports and that multiplies bf16."""
CHECK_TOLERANCE = 1e-2


def works(device: torch.device) -> bool:
    """Whether tensors on `device` may be left to the kernels."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return importlib.util.find_spec("triton") is not None
    return device.type == "cuda" and _works_on(device)


@cache
def _works_on(device: torch.device) -> bool:
    """Whether Triton compiles for this GPU and the kernels are right on a small problem.

    Triton needs a C compiler and a driver that it knows; a warning says what is amiss.
    """
    if torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return False
    try:
        error = _check_error(device)
        problem = "" if error <= CHECK_TOLERANCE else f"its result is off by {error:.1e}"
    except Exception as failure:
        problem = f"{type(failure).__name__}: {failure}".splitlines()[0]
    if problem:
        warnings.warn(
            f"Triton kernels of QuadTree attention unused on {device}, plain operators run "
            f"instead: {problem}",
            stacklevel=2,
        )
    return not problem


def _check_error(device: torch.device) -> float:
    """Largest difference of messages and gradients from the reference where every key descends."""
    from matcher.attention import triton_kernel, triton_levels

    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        tuple(torch.randn(1, 2, n, 16, generator=generator).to(device) for n in (4, 16, 64))
        for _ in range(3)
    )
    pyramids = Pyramids(queries, keys, values, (None, None, None))
    with torch.autocast(device.type, enabled=False), torch.enable_grad():
        tokens = [x.requires_grad_() for level in pyramids[:3] for x in level]
        steps = reference.descend(pyramids, (4, 16, 1), "B")
        expected = [step.message for step in steps]
        messages = triton_levels.descend(pyramids, (4, 16, 1), "B")
        gradients = (_gradients(x, tokens) for x in (messages, expected))
        pairs = [*zip(messages, expected, strict=True), *zip(*gradients, strict=True)]
        with torch.no_grad():
            fused = triton_kernel.descend(pyramids, (4, 16, 1), "B")
        pairs += zip(fused, expected, strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


def _gradients(messages: Sequence[Tensor], tokens: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Of the sum of squares of all messages."""
    return torch.autograd.grad([x.square().sum() for x in messages], tokens)
