"""Whether the Triton kernel of QuadTree attention works here.

Triton comes with PyTorch for CUDA on Linux and is imported for tensors on an NVIDIA GPU only, or
for any under `TRITON_INTERPRET=1`, which runs kernels in Triton's interpreter.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from functools import cache

import torch

from matcher.attention import reference
from matcher.attention.reference import Pyramids

LEAST_CAPABILITY = (8, 0)
"""Oldest NVIDIA architecture that Triton supports and that multiplies bf16."""
CHECK_TOLERANCE = 1e-2


def works(device: torch.device) -> bool:
    """Whether tensors on `device` may be left to the kernel."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return importlib.util.find_spec("triton") is not None
    return device.type == "cuda" and _works_on(device)


@cache
def _works_on(device: torch.device) -> bool:
    """Whether Triton compiles for this GPU and the kernel is right on a small problem.

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
            f"Triton kernel of QuadTree attention unused on {device}, plain operators run instead: "
            f"{problem}",
            stacklevel=2,
        )
    return not problem


def _check_error(device: torch.device) -> float:
    """Largest difference from the reference where every key descends."""
    from matcher.attention import triton_kernel

    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (
        tuple(torch.randn(1, 2, n, 16, generator=generator).to(device) for n in (4, 16, 64))
        for _ in range(3)
    )
    pyramids = Pyramids(queries, keys, values, (None, None, None))
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        messages = triton_kernel.descend(pyramids, (4, 16, 1), "B")
        steps = reference.descend(pyramids, (4, 16, 1), "B")
    pairs = zip(messages, steps, strict=True)
    return max(float((x - step.message).abs().max()) for x, step in pairs)
