"""Loop one: predictions, computed once, kept as one file a pair, read by everything after.

The folder is named by a hash of everything that decides the predictions and their timing, so that
another configuration never mixes with it. A file is published whole as soon as its pair is done: a
run that is killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from eval.benchmarks.folder import Benchmark, EvalPair
from eval.benchmarks.sizing import convert, resized
from eval.memory import PeakMemory
from eval.methods import Method, MethodOptions, build_method
from matcher.errors import Code, MatcherError, MemoryLimitError, StorageError, out_of_memory
from matcher.files import make_folder, write_atomically
from matcher.images.load import read_rgb
from matcher.results.record import ImageRecord, MatchRecord, read_matches, write_matches
from matcher.runtime import warm_allocator
from matcher.structures import Matches

FORMAT = 2
"""Raised when the meaning of cached predictions changes."""
Cost = Mapping[str, float]
"""``seconds``, ``cpu_seconds`` and ``peak_mb`` as in `Prediction`."""
NO_COST: Cost = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_mb": 0.0}


@dataclass(frozen=True)
class Prediction:
    """What a method answered for a pair."""

    matches: Matches
    """In pixels of the stored images."""
    size0: tuple[int, int]
    """(width, height) as stored; (0, 0) if it could not be read."""
    size1: tuple[int, int]
    seconds: float
    """Of the method alone, without reading images."""
    cpu_seconds: float
    """Processor time of the same, of all its threads: also fair on a busy machine."""
    peak_mb: float
    """Most memory the process held meanwhile; on a GPU, that the GPU's tensors took."""
    failure: str = ""
    """Why there is no answer at all."""


@dataclass(frozen=True)
class Job:
    """Predictions of one method for one benchmark."""

    benchmark: Benchmark
    method_options: MethodOptions
    folder: Path
    threads: int = 1
    overwrite: bool = False

    def path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.h5"


def prepare(
    root: Path,
    benchmark: Benchmark,
    method: Method,
    options: MethodOptions,
    *,
    threads: int,
    overwrite: bool,
) -> Job:
    """The folder of these predictions, made where it is new."""
    decisive = {
        "format": FORMAT,
        "benchmark": benchmark.name,
        "dataset": benchmark.dataset,
        "pairs": benchmark.digest,
        "size": benchmark.sizing.describe(),
        "threads": threads,
        "device": method.device,
        **method.settings,
    }
    text = json.dumps(decisive, indent=1, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    label = "".join(c if c.isalnum() else "_" for c in f"{benchmark.dataset}-{method.name}")
    folder = root / f"{label}-{key}"
    make_folder(folder)
    write_atomically(folder / "config.json", text.encode())
    return Job(benchmark, options, folder, threads, overwrite)


def predict(job: Job, method: Method, name: str, workers: int) -> None:
    """Compute what is missing; shows the pairs done and the time left."""
    pairs = job.benchmark.pairs
    missing = [
        i for i, pair in enumerate(pairs) if job.overwrite or _cached(job.path(i), pair) is None
    ]
    bar = tqdm(
        total=len(pairs),
        initial=len(pairs) - len(missing),
        desc=f"{method.name} on {job.benchmark.dataset}",
        unit="pair",
        disable=None,
    )
    with bar:
        if workers == 1 or len(missing) < 2:
            _set_up_process(job.threads)
            for i in missing:
                predict_pair(job, i, method)
                bar.update()
        else:
            for _ in _in_processes(job, name, missing, workers):
                bar.update()


def read_predictions(job: Job) -> list[Prediction]:
    """All predictions of a job, in the order of the pairs."""
    out = []
    for i, pair in enumerate(job.benchmark.pairs):
        found = _cached(job.path(i), pair)
        if found is None:
            raise StorageError(
                Code.DAMAGED_RESULT, job.path(i), "the prediction is missing", "run again"
            )
        out.append(found)
    return out


def predict_pair(job: Job, index: int, method: Method) -> None:
    """Match one pair and publish its file; an error of ours is the failure of the pair."""
    pair, sizing = job.benchmark.pairs[index], job.benchmark.sizing
    sizes = [(0, 0), (0, 0)]
    matches, cost, failure = Matches.empty(), NO_COST, ""
    try:
        images = [read_rgb(path) for path in (pair.image0, pair.image1)]
        sizes = [_size(image) for image in images]
        images = [
            resized(image, sizing.target(size)) for image, size in zip(images, sizes, strict=True)
        ]
        found, cost = _match(method, images)
        points0, points1 = (
            torch.from_numpy(convert(keypoints, _size(image), size, sizing.published)).float()
            for keypoints, image, size in zip(found.numpy()[:2], images, sizes, strict=True)
        )
        matches = Matches(points0, points1, found.scores.cpu().float(), found.reason)
    except MatcherError as error:
        failure = f"E{error.code} {Path(error.subject).name}: {error.what}"
    image0, image1 = (
        ImageRecord(path.name, *size)
        for path, size in zip((pair.image0, pair.image1), sizes, strict=True)
    )
    facts = {"pair": pair.name, **cost, "failure": failure}
    write_matches(job.path(index), MatchRecord(matches, image0, image1, provenance=facts))


def _match(method: Method, images: Sequence[np.ndarray]) -> tuple[Matches, Cost]:
    """What a method finds in two images, and what that took.

    Raises:
        MemoryLimitError: the pair does not fit into memory (E131).
    """
    memory = PeakMemory(method.device)
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        found = method.match(*images)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryLimitError(Code.OUT_OF_MEMORY, method.device, "out of memory") from error
    return found, {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "peak_mb": memory.megabytes(),
    }


def _size(image: np.ndarray) -> tuple[int, int]:
    """(width, height)"""
    return image.shape[1], image.shape[0]


def _cached(path: Path, pair: EvalPair) -> Prediction | None:
    """The finished prediction in a file; None if there is none, or not of this pair."""
    if not path.exists():
        return None
    try:
        record = read_matches(path)
    except StorageError:
        return None
    facts = record.provenance
    if facts.get("pair") != pair.name:
        return None
    sizes = [(image.width, image.height) for image in (record.image0, record.image1)]
    return Prediction(
        record.matches,
        *sizes,
        seconds=float(facts["seconds"]),
        cpu_seconds=float(facts["cpu_seconds"]),
        peak_mb=float(facts["peak_mb"]),
        failure=str(facts["failure"]),
    )


_worker: tuple[Job, Method] | None = None


def _in_processes(job: Job, name: str, missing: list[int], workers: int) -> Iterator[int]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(missing)), context, initializer=_start_worker, initargs=(job, name)
    )
    with pool:
        try:
            for future in as_completed([pool.submit(_work, i) for i in missing]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(job: Job, name: str) -> None:
    global _worker
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _set_up_process(job.threads)
    _worker = job, build_method(name, job.method_options)


def _work(index: int) -> int:
    if _worker is None:
        raise RuntimeError("the worker was not started")
    predict_pair(_worker[0], index, _worker[1])
    return index


def _leave_with_parent() -> None:
    """A killed parent cannot end its workers: they notice and leave."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _set_up_process(threads: int) -> None:
    warm_allocator()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
