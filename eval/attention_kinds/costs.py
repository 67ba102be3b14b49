"""What a row costs: multiply-adds, parameters, time and memory of a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from eval.attention_kinds.rows import SIDE, build_row, keys_of_a_query
from eval.peak_memory import PeakMemory
from matcher.errors import Code, ProcessError
from matcher.network.pyramid import PyramidConfig

TIMED_BATCH, MEMORY_BATCH = 8, 32


@dataclass(frozen=True)
class Costs:
    """Of one row."""

    keys: int
    """that a query of the first stage scores"""
    multiply_adds: int
    """of an image, forward"""
    parameters: int
    milliseconds: float
    """processor time of an image, forward and backward, one thread: median of the rounds"""
    megabytes: float
    """that a forward and backward pass of `MEMORY_BATCH` images adds to the process at its peak"""


def measure_costs(rows: Mapping[str, PyramidConfig], rounds: int) -> dict[str, Costs]:
    """The costs of all rows; times are taken in turns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = _times(rows, rounds)
    finally:
        torch.set_num_threads(threads)
    return {
        name: Costs(
            keys=keys_of_a_query(config, SIDE // 4),
            multiply_adds=multiply_adds(build_row(config, 0).eval(), (SIDE, SIDE)),
            parameters=sum(p.numel() for p in build_row(config, 0).parameters()),
            milliseconds=1e3 * statistics.median(times[name]) / TIMED_BATCH,
            megabytes=_peak(config),
        )
        for name, config in rows.items()
    }


def multiply_adds(
    call: Callable[[Tensor], object], size: tuple[int, int], device: str = "cpu"
) -> int:
    """Of `call` with one image of `size`, (height, width).

    Attention is counted as plain products: PyTorch's counter does not see its fused kernels for
    CPUs, and full attention would come out cheaper than any other.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        call(torch.zeros(1, 3, *size, device=device))
    return counter.get_total_flops() // 2


def _times(rows: Mapping[str, PyramidConfig], rounds: int) -> dict[str, list[float]]:
    models = {name: build_row(config, 0).train() for name, config in rows.items()}
    images = _images(TIMED_BATCH)
    times: dict[str, list[float]] = {name: [] for name in rows}
    for i in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            model(images).square().sum().backward()
            if i:  # The first round is a warm-up.
                times[name].append(time.process_time() - start)
    return times


def _peak(config: PyramidConfig) -> float:
    """In a process of its own, whose peak no other row has raised."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_peak_here, config).result()
        except BrokenProcessPool as error:
            what = "the process that measures memory was killed, perhaps for want of it"
            raise ProcessError(Code.DEAD_LOADER, config.attention, what, "run again") from error


def _peak_here(config: PyramidConfig) -> float:
    torch.set_num_threads(1)
    model = build_row(config, 0).train()
    model(_images(1)).sum().backward()
    images = _images(MEMORY_BATCH)
    before = PeakMemory("cpu")
    base = before.megabytes()
    model(images).square().sum().backward()
    return before.megabytes() - base


def _images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
