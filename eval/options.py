"""What an evaluation is asked to do: plain values checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.benchmarks.options import BenchmarkOptions
from matcher.config import (
    config_from_dict,
    invalid,
    require_at_least,
    require_positive,
    require_range,
)


@dataclass(frozen=True)
class EvalOptions:
    """``conf/eval.yaml`` with its benchmark."""

    benchmark: BenchmarkOptions
    method: tuple[str, ...] = ("compact",)
    protocol: tuple[str, ...] = ("poselib",)
    output: str = "outputs/eval"
    limit: int | None = None
    workers: int = 1
    threads: int = 1
    seed: int = 0
    bootstrap: int = 1000
    ransac_threshold: float | None = None
    keypoints: int = 4096
    ratio: float = 0.85
    threshold: float | None = None
    device: str | None = None
    offline: bool = True
    overwrite: bool = False
    report: bool = True
    drawn: int = 6
    document: str | None = None

    def __post_init__(self) -> None:
        require_at_least("seed", 0, self.seed)
        require_positive("workers", self.workers)
        require_positive("threads", self.threads)
        require_positive("keypoints", self.keypoints)
        if self.limit is not None:
            require_positive("limit", self.limit)
        require_range("bootstrap", self.bootstrap, 0, 1_000_000)
        require_range("drawn", self.drawn, 0, 1000)
        require_range("ratio", self.ratio, 1e-6, 1.0)
        if not self.method or not self.protocol:
            raise invalid("method", self.method, "at least one method and one protocol")


def eval_options(values: Mapping[str, Any]) -> EvalOptions:
    """Options from composed plain values.

    Raises:
        UsageError: an unknown key (with the nearest valid one) or a value that cannot work.
    """
    plain: dict[str, Any] = dict(values)
    for name in ("method", "protocol"):
        plain[name] = split_names(plain.get(name, ()))
    benchmark = plain.get("benchmark", {})
    plain["benchmark"] = config_from_dict(BenchmarkOptions, benchmark, "benchmark.")
    return config_from_dict(EvalOptions, plain)


def split_names(value: Any) -> tuple[str, ...]:
    """``a,b`` or a list as names, each once."""
    words = value.split(",") if isinstance(value, str) else [str(word) for word in value]
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
