"""Where the Triton kernel of `matcher.attention.triton_kernel` runs the descent, and where not.

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

from matcher.attention.reference import attend_blocks

LEAST_CAPABILITY = (8, 0)
"""Oldest NVIDIA architecture that Triton supports and that multiplies bf16."""
CHECK_TOLERANCE = 1e-2


def takes(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    topks: Sequence[int],
) -> bool:
    """Whether the kernel can run this descent."""
    if not _usable(queries[0].device):
        return False
    from matcher.attention import triton_kernel

    return triton_kernel.supports(queries, keys, values, topks)


def descend(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    topks: Sequence[int],
    variant: str,
    key_masks: Sequence[Tensor | None],
) -> list[Tensor]:
    """The messages of all levels: arguments and result as in `quadtree.descend`."""
    from matcher.attention import triton_kernel

    return triton_kernel.descend(
        queries, keys, values, topks=topks, variant=variant, key_masks=key_masks
    )


def _usable(device: torch.device) -> bool:
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
    """Largest difference from the reference where everything descends."""
    from matcher.attention import triton_kernel

    generator = torch.Generator().manual_seed(0)
    middle, fine = (torch.randn(3, 1, 2, n, 16, generator=generator).to(device) for n in (16, 64))
    blocks = torch.tensor([3, 1], device=device).expand(1, 2, 4, 2)
    q1, k1, v1 = middle
    q2, k2, v2 = fine
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        found = triton_kernel.descend_blocks(
            (q1, q2), (k1, k2), (v1, v2), blocks, None, 8, (None, None)
        )
        above = attend_blocks(q1, k1, v1, None, blocks, None, 8, False)
        if above.selected is None:
            raise RuntimeError("no key descended")
        below = attend_blocks(q2, k2, v2, None, above.selected, None, 0, False)
    pairs = zip(found, (above.message, below.message), strict=True)
    return max(float((x - y).abs().max()) for x, y in pairs)
