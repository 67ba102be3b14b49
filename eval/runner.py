"""One evaluation from options to records: predict what is missing, then measure the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import poselib
import torch

from eval.benchmarks import load_benchmark
from eval.benchmarks.folder import Benchmark
from eval.benchmarks.sizing import CONVENTIONS, PUBLISHED
from eval.measure import Row, measure_pair
from eval.methods import (
    ALL,
    Method,
    MethodOptions,
    MethodUnavailableError,
    build_method,
    check_method,
)
from eval.options import EvalOptions
from eval.predictions import Prediction, machine_of, predict, prepare, read_predictions
from eval.protocols import Protocol, protocol_named
from eval.summary import summarize

ESTIMATORS = {
    "poselib": "PoseLib LO-RANSAC",
    "magsac": "OpenCV USAC_MAGSAC",
    "ransac": "OpenCV RANSAC",
}


@dataclass(frozen=True)
class Evaluation:
    """A method on a benchmark under a protocol, with all that the reports draw from."""

    record: dict[str, Any]
    """What ``results.json`` holds of it."""
    timing: dict[str, Any]
    """What differs from run to run."""
    benchmark: Benchmark
    rows: Sequence[Row] = ()
    predictions: Sequence[Prediction] = ()


def evaluate(plans: Sequence[EvalOptions]) -> list[Evaluation]:
    """Every method under every protocol on the benchmark of each of `plans`.

    Names and data are looked up before anything is matched. A method that cannot run here is
    reported by name with the reason. A pair that fails counts as an infinite error and is listed.
    """
    for plan in plans:
        for name in _methods(plan):
            check_method(name, offline=plan.offline)
    looked_up = [(plan, _benchmarks(plan)) for plan in plans]
    return [
        evaluation
        for plan, benchmarks in looked_up
        for name in _methods(plan)
        for benchmark in benchmarks
        for evaluation in _evaluate_method(plan, name, benchmark)
    ]


def _methods(options: EvalOptions) -> list[str]:
    """Names of methods, each once."""
    return list(
        dict.fromkeys(name for m in options.method for name in (ALL if m == "all" else (m,)))
    )


def _protocols(options: EvalOptions) -> list[Protocol]:
    threshold, seed = options.ransac_threshold, options.seed
    return [protocol_named(name, threshold=threshold, seed=seed) for name in options.protocol]


def _benchmarks(options: EvalOptions) -> list[Benchmark]:
    """The benchmark in every convention that a protocol wants."""
    wanted = {protocol.convention for protocol in _protocols(options)}
    cache = Path(options.output) / "rendered"
    return [
        load_benchmark(options.benchmark, cache=cache, limit=options.limit, convention=convention)
        for convention in CONVENTIONS
        if convention in wanted
    ]


def _evaluate_method(options: EvalOptions, name: str, benchmark: Benchmark) -> list[Evaluation]:
    protocols = [p for p in _protocols(options) if p.convention == benchmark.sizing.convention]
    others = ("keypoints", "ratio", "xfeat", "aliked")
    own = ("threshold", "refine", "zoom", "device", "offline")
    values = {name: getattr(options, name) for name in (*others, *own)}
    if benchmark.sizing.convention is PUBLISHED:
        values |= {"refine": "none", "zoom": "off"}
    settings = MethodOptions(**values, padded=benchmark.sizing.pads)
    try:
        method = build_method(name, settings)
    except MethodUnavailableError as error:
        absent = {"status": "unavailable", "reason": error.why}
        return [
            Evaluation({**_identity(name, benchmark, p), **absent}, {}, benchmark)
            for p in protocols
        ]
    folder = Path(options.output) / "predictions"
    how = {"threads": options.threads, "overwrite": options.overwrite}
    job = prepare(folder, benchmark, method, settings, **how)
    predict(job, method, name, options.workers)
    predictions = read_predictions(job)
    return [_measured(options, method, benchmark, p, predictions) for p in protocols]


def _measured(
    options: EvalOptions,
    method: Method,
    benchmark: Benchmark,
    protocol: Protocol,
    predictions: Sequence[Prediction],
) -> Evaluation:
    rows = [
        measure_pair(pair, prediction, benchmark.sizing, protocol)
        for pair, prediction in zip(benchmark.pairs, predictions, strict=True)
    ]
    identity = _identity(method.name, benchmark, protocol)
    record = {
        **identity,
        "status": "ok",
        **summarize(rows, bootstrap=options.bootstrap, seed=options.seed),
        **_circumstances(method, benchmark, protocol),
        "bootstrap": options.bootstrap,
    }
    seconds = np.array([p.seconds for p in predictions])
    timing = {
        **identity,
        "seconds_mean": float(seconds.mean()),
        "seconds_median": float(np.median(seconds)),
        "cpu_seconds_median": float(np.median([p.cpu_seconds for p in predictions])),
        "peak_mb": max(p.peak_mb for p in predictions),
        "threads": options.threads,
        "device": method.device,
        "machine": machine_of(method.device),
        "torch": torch.__version__,
    }
    return Evaluation(record, timing, benchmark, rows, predictions)


def _identity(name: str, benchmark: Benchmark, protocol: Protocol) -> dict[str, Any]:
    return {
        "method": name,
        "benchmark": benchmark.name,
        "dataset": benchmark.dataset,
        "protocol": protocol.name,
    }


def _circumstances(method: Method, benchmark: Benchmark, protocol: Protocol) -> dict[str, Any]:
    """Everything a reader needs to repeat the numbers."""
    homography = benchmark.pairs[0].homography is not None
    estimator = protocol.homography if homography else protocol.pose
    image = "matched image" if homography else protocol.convention.threshold_image
    return {
        "estimator": ESTIMATORS[estimator.name],
        "model": "homography" if homography else "essential",
        "threshold": estimator.threshold,
        "threshold_unit": f"px of the {image}",
        "confidence": estimator.confidence,
        "iterations": estimator.iterations,
        "seed": estimator.seed,
        "image_size": benchmark.sizing.describe(),
        "opencv": cv2.__version__,
        "poselib": poselib.__version__,
        "weights_sha256": method.weights_sha256,
        "settings": method.settings,
        **benchmark.facts,
    }
