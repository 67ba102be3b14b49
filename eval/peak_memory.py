"""Peak memory of a piece of work."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures work on `device` from its construction on.

    Of work on a GPU what its tensors take there; otherwise the largest resident size of the
    process, which includes the program itself. Where the system cannot start that count anew (not
    Linux), it counts from the start of the process.
    """

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            return
        try:
            _RESET.write_text("5")
            self.linux = _STATUS.is_file()
        except OSError:
            self.linux = False

    def megabytes(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() / 1e6
        if self.linux:
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / 1e6
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
