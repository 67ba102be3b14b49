"""The process that matches: where it computes, and what the C library does with freed memory."""

from __future__ import annotations

import ctypes
import re

import torch

from matcher.validation.checked import invalid


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


LARGEST_LEARNED = 31 << 20
"""Just below the 32 MB up to which glibc learns from the blocks that are freed."""


def keep_little() -> None:
    """Have glibc keep up to 62 MB of freed memory.

    It gives back what is free above twice the size of the largest block freed so far, and a pair
    of images on the CPU then spends a twentieth of its time on getting it back. So free a large
    block, once. Elsewhere this changes nothing.
    """
    torch.empty(LARGEST_LEARNED, dtype=torch.uint8)


def keep_everything() -> None:
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
