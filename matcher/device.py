"""Where a model computes."""

from __future__ import annotations

import re

import torch

from matcher.config import invalid


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
