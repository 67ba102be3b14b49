"""The process that matches: where it computes, and what the C library does with freed memory."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from time import perf_counter
from typing import TypeVar

import torch
import torch.nn.functional as F

from matcher.errors import out_of_memory
from matcher.validation.checked import invalid

Item = TypeVar("Item")
Result = TypeVar("Result")


def find_device(device: str | torch.device | None) -> torch.device:
    """The device of that name; None takes a CUDA device where there is one.

    Raises:
        UsageError: no such device on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        reason = re.split(r"\n|\. ", str(error))[0][:120]
        raise invalid("device", str(device), f"a device of this machine ({reason})") from error


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The arithmetic of that name (of `PredictorOptions.dtype`) on a device.

    ``auto`` is bfloat16 where the device gains by it, and float32 elsewhere.
    """
    if name != "auto":
        return getattr(torch, name)
    return torch.bfloat16 if computes_in_bfloat16(device) else torch.float32


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device is faster in bfloat16: asked of a GPU, measured on a processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip is not None
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes) and _gains()


@contextmanager
def own_settings() -> Iterator[None]:
    """Meanwhile, tensors are ordinary ones without gradients, in full precision, and lie on the CPU
    where no device is named, whatever the process of the user has set. Also a decorator."""
    moved = torch.get_default_device().type != "cpu"
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        # As a mode it costs time in every call of a function of torch.
        with torch.device("cpu") if moved else nullcontext():
            yield


@cache
@own_settings()
def _gains() -> bool:
    """Whether products on the CPU are faster in bfloat16, which takes some milliseconds to see.

    Of processors with AVX512-BF16, an AMD EPYC matched a pair in 0.65 of the time of float32, and
    an Intel Xeon without AMX in 1.2 times that, convolutions alone in twice.
    """
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(5):
        for dtype, times in seconds.items():
            times.append(_seconds_of_product(dtype))
    return min(seconds[torch.bfloat16]) < min(seconds[torch.float32])


def _seconds_of_product(dtype: torch.dtype) -> float:
    tokens, weight = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 256, dtype=dtype)
    start = perf_counter()
    F.linear(tokens, weight)
    return perf_counter() - start


def in_halves(
    run: Callable[[Sequence[Item]], Sequence[Result]],
    batch: Sequence[Item],
    too_large: Callable[[Item], Result],
    release: Callable[[], None] = lambda: None,
) -> list[Result]:
    """Results that `run` gives for a batch; where memory runs out, those of its halves.

    Args:
        too_large: the result of an item that does not fit into memory alone; it may raise.
        release: frees what memory it can, after it ran out.
    """
    try:
        return [*run(batch)]
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Not inside the handler: the error holds on to what the run had allocated.
    release()
    if len(batch) == 1:
        return [too_large(batch[0])]
    half = len(batch) // 2
    parts = (batch[:half], batch[half:])
    return [result for part in parts for result in in_halves(run, part, too_large, release)]


def warm_allocator() -> None:
    """Have glibc keep up to 62 MB of freed memory: for a program that matches on the CPU.

    It gives back what is free above twice the size of the largest block freed so far, and a pair
    of images on the CPU then spends a twentieth of its time on getting it back. So free a large
    block, once. Elsewhere this changes nothing.
    """
    just_below_the_limit_of_glibc = 31 << 20
    torch.empty(just_below_the_limit_of_glibc, dtype=torch.uint8)


def keep_freed_memory() -> None:
    """Have glibc keep all freed memory: for a program that lives on it, such as a training.

    A training step on the CPU otherwise spends a quarter of its time on page faults.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, (1 << 31) - 1)
    mallopt(top_pad, 256 << 20)
