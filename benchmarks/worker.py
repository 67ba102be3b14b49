"""One method in a process of its own, which measures a call whenever it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

FOUR_LEVELS = 16 * 1200
"""Tokens above which `benchmarks.attention.levels_for` takes more than three levels."""


@dataclass(frozen=True)
class Case:
    """What is measured."""

    part: str
    """``attention`` (one call) or ``pair`` (two images to matches)"""
    method: str
    size: tuple[int, int]
    """pixels (H, W)"""
    dtype: str = "float32"
    training: bool = False
    device: str = "cpu"

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens (h, w); of a large attention call, cut so that four levels fit."""
        rows, columns = (side // 8 for side in self.size)
        if self.part == "attention" and rows * columns > FOUR_LEVELS:
            return rows // 8 * 8, columns // 8 * 8
        return rows, columns

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]


class Worker:
    """A process that answers orders one at a time; the caller decides the turns.

    Raises:
        RuntimeError: what went wrong in the process, from `order`.
    """

    def __init__(self, threads: int) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, threads), daemon=True)
        self._process.start()
        theirs.close()

    def order(self, name: str, *arguments: Any) -> Any:
        self._connection.send((name, arguments))
        try:
            good, answer = self._connection.recv()
        except EOFError as error:
            raise RuntimeError("the process was killed, such as for want of memory") from error
        if not good:
            raise RuntimeError(answer)
        return answer

    def close(self) -> None:
        self._connection.close()
        self._process.join()


def serve(connection: Connection, threads: int) -> None:
    """Answer orders until the other side closes."""
    import cv2
    import torch

    from matcher.runtime import warm_allocator

    warm_allocator()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.manual_seed(0)
    bench = Bench()
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, getattr(bench, name)(*arguments)))
        except Exception as error:
            connection.send((False, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"))


class Bench:
    """What a worker can be told."""

    def __init__(self) -> None:
        self.call: Callable[[], object] = lambda: None
        self.answer: object = None
        self.threshold = 0.0
        self.device = "cpu"
        self.memory: Any = None

    def prepare(self, case: Case) -> None:
        """Build the method."""
        import torch

        from eval.peak_memory import PeakMemory

        self.device = case.device
        if case.device != "cpu":
            torch.cuda.init()
        self.memory = PeakMemory(case.device)
        dtype = getattr(torch, case.dtype)
        if case.part == "attention":
            from benchmarks.attention import calls

            self.call = calls(case.grid, dtype, case.training)[case.method]
            return
        from benchmarks.pair_methods import METHODS

        match = METHODS[case.method](case.size, dtype, case.device)
        self.threshold = threshold_of(match(0.0), case.tokens // 8)
        self.call = lambda: len(match(self.threshold))

    def seconds(self) -> float:
        """Of one call."""
        start = time.perf_counter()
        self.answer = self.call()
        self._wait()
        return time.perf_counter() - start

    def first(self) -> tuple[float, int, int]:
        """Seconds of one call, its FLOPs, and its matches where it is a pair."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False):  # Loads what it needs.
            torch.mm(torch.ones(2, 2), torch.ones(2, 2))
        with FlopCounterMode(display=False) as counter:
            seconds = self.seconds()
        matches = self.answer if isinstance(self.answer, int) else 0
        return seconds, counter.get_total_flops(), matches

    def peak_megabytes(self) -> float:
        """Largest resident size of the process since `prepare`; on a GPU, of the tensors."""
        return self.memory.megabytes()

    def _wait(self) -> None:
        if self.device != "cpu":
            import torch

            torch.cuda.synchronize()


def threshold_of(scores: Any, matches: int) -> float:
    """The threshold that so many of the scores exceed; 0 where there are not so many."""
    return 0.0 if len(scores) <= matches else float(sorted(scores, reverse=True)[matches])
