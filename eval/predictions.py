"""Loop one: predictions, computed once, kept as one file a pair, read by everything after.

The folder is named by a hash of everything that decides the predictions and their timing, so that
another configuration never mixes with it, but for what the images hold: that is noted with every
pair. A file is published whole as soon as its pair is done: a run that is killed goes on where it
stopped. A pair that failed is tried again by the next run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import kornia
import numpy as np
import PIL
import torch
from tqdm import tqdm

import eval.benchmarks.sizing
import eval.methods
import matcher.images
from eval.benchmarks.folder import Benchmark, EvalPair, content_of
from eval.benchmarks.sizing import Sizing
from eval.methods import Method, MethodOptions, build_method
from eval.methods.base import Settings
from eval.names import file_label
from eval.peak_memory import PeakMemory
from eval.processes import in_processes
from eval.source import source_digest
from matcher.errors import (
    Code,
    MatcherError,
    MemoryLimitError,
    StorageError,
    UsageError,
    out_of_memory,
)
from matcher.files import make_folder, write_atomically
from matcher.images.load import read_rgb
from matcher.images.preprocess import resize
from matcher.results.record import ImageRecord, MatchRecord, read_matches, write_matches
from matcher.runtime import warm_allocator
from matcher.structures import Matches

READING = (
    Path(matcher.images.__file__ or "").parent,
    Path(eval.methods.__file__ or "").parent,
    Path(eval.benchmarks.sizing.__file__ or ""),
    Path(__file__),
)
"""Code between the files of images and what any method answers."""
LIBRARIES = (cv2, kornia, np, PIL, torch)
FORMAT = 3
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


class PairJob(NamedTuple):
    """What one pair of a job needs."""

    pair: EvalPair
    sizing: Sizing
    path: Path
    content: str
    """Hashes of its images when the run began."""

    def cached(self) -> Prediction | None:
        """The finished prediction; None if there is none, or it is of other images."""
        if not self.path.is_file():
            return None
        try:
            record = read_matches(self.path)
            facts = record.provenance
            cost = {name: float(facts[name]) for name in NO_COST}
            failure = str(facts["failure"])
        except (StorageError, KeyError, TypeError, ValueError):
            return None
        if (facts.get("pair"), facts.get("content")) != (self.pair.name, self.content):
            return None
        size0, size1 = ((image.width, image.height) for image in (record.image0, record.image1))
        return Prediction(record.matches, size0, size1, **cost, failure=failure)


@dataclass(frozen=True)
class Job:
    """Predictions of one method for one benchmark."""

    benchmark: Benchmark
    method_options: MethodOptions
    folder: Path
    pairs: tuple[PairJob, ...]
    threads: int = 1
    overwrite: bool = False


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
        "machine": machine_of(method.device),
        "name": method.name,
        "reading": source_digest(READING),
        "libraries": {package.__name__: package.__version__ for package in LIBRARIES},
        **method.settings,
    }
    text = json.dumps(decisive, indent=1, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    label = file_label(f"{benchmark.dataset}-{method.name}")
    folder = root / f"{label}-{key}"
    make_folder(folder)
    write_atomically(folder / "config.json", text.encode())
    pairs = tuple(
        PairJob(pair, benchmark.sizing, folder / f"{i:06d}.h5", content_of_pair(pair))
        for i, pair in enumerate(benchmark.pairs)
    )
    return Job(benchmark, options, folder, pairs, threads, overwrite)


def machine_of(device: str) -> str:
    """The kind of machine, in words: times of another are no times of this one."""
    cpu = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    there = device.startswith("cuda") and torch.cuda.is_available()
    gpu = f", {torch.cuda.get_device_name(device)}" if there else ""
    return f"{cpu}, {os.cpu_count()} cores{gpu}"


def content_of_pair(pair: EvalPair) -> str:
    return f"{content_of(pair.image0)} {content_of(pair.image1)}"


def predict(job: Job, method: Method, name: str, workers: int) -> None:
    """Compute what is missing; shows the pairs done and the time left."""
    missing = [pair for pair in job.pairs if job.overwrite or not is_done(pair)]
    title, count = f"{method.name} on {job.benchmark.dataset}", len(job.pairs)
    done = count - len(missing)
    with tqdm(desc=title, total=count, initial=done, unit="pair", disable=None) as bar:
        if workers == 1 or len(missing) < 2:
            _set_up_process(job.threads)
            for pair in missing:
                predict_pair(pair, method)
                bar.update()
        else:
            build = partial(_method_of_worker, name, job.method_options)
            work = partial(_predict_in_worker, build=build, settings=method.settings)
            in_processes(work, missing, workers, partial(_set_up_process, job.threads), bar.update)


def is_done(pair: PairJob) -> bool:
    """Whether a pair need not be matched; a failure may pass, such as one for want of memory."""
    prediction = pair.cached()
    return prediction is not None and not prediction.failure


def read_predictions(job: Job) -> list[Prediction]:
    """All predictions of a job, in the order of the pairs."""
    out = []
    for pair in job.pairs:
        prediction = pair.cached()
        if prediction is None:
            what = "the prediction is missing, or an image was changed meanwhile"
            raise StorageError(Code.DAMAGED_RESULT, pair.path, what, "run again")
        out.append(prediction)
    return out


def predict_pair(job: PairJob, method: Method) -> None:
    """Match one pair and publish its file; an error of ours is the failure of the pair, but for
    one of the method alone (E211)."""
    pair, sizing = job.pair, job.sizing
    sizes = [(0, 0), (0, 0)]
    matches, cost, failure = Matches.empty(), NO_COST, ""
    content = content_of_pair(pair)
    try:
        images = [read_rgb(path) for path in (pair.image0, pair.image1)]
        if content_of_pair(pair) != content:
            content = "replaced while it was read"
        sizes = [_size(image) for image in images]
        images = [resize(image, sizing.target(_size(image))) for image in images]
        answer, cost = _match(method, images)
        points0, points1 = (
            torch.from_numpy(sizing.convention.convert(keypoints, _size(image), size)).float()
            for keypoints, image, size in zip(answer.numpy()[:2], images, sizes, strict=True)
        )
        matches = replace(answer.to("cpu"), keypoints0=points0, keypoints1=points1)
    except MatcherError as error:
        if error.code == Code.UNUSABLE_METHOD:
            raise
        failure = f"E{error.code} {Path(error.subject).name}: {error.what}"
    image0 = ImageRecord(pair.image0.name, *sizes[0])
    image1 = ImageRecord(pair.image1.name, *sizes[1])
    facts = {"pair": pair.name, "content": content, **cost, "failure": failure}
    write_matches(job.path, MatchRecord(matches, image0, image1, provenance=facts))


def _match(method: Method, images: Sequence[np.ndarray]) -> tuple[Matches, Cost]:
    """Matches of two images by a method, and what they took; `MemoryLimitError` (E131)."""
    memory = PeakMemory(method.device)
    start, cpu_start = time.perf_counter(), time.process_time()
    try:
        matches = method(*images)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryLimitError(Code.OUT_OF_MEMORY, method.device, "out of memory") from error
    return matches, {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "peak_mb": memory.megabytes(),
    }


def _size(image: np.ndarray) -> tuple[int, int]:
    """(width, height)"""
    return image.shape[1], image.shape[0]


def _predict_in_worker(job: PairJob, *, build: Callable[[], Method], settings: Settings) -> None:
    """As `predict_pair`; `UsageError` (E206) where the method became another one meanwhile."""
    method = build()
    if method.settings != settings:
        what = "its files were changed while the evaluation ran"
        raise UsageError(Code.OTHER_SETTINGS, method.name, what, "run again, or evaluate a copy")
    predict_pair(job, method)


@functools.cache
def _method_of_worker(name: str, options: MethodOptions) -> Method:
    """The method of this process, built for its first pair."""
    return build_method(name, options)


def _set_up_process(threads: int) -> None:
    warm_allocator()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
