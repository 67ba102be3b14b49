"""What an evaluation is asked to do: plain values checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.benchmarks.sizing import Sizing
from matcher.config import (
    config_from_dict,
    invalid,
    require_at_least,
    require_choice,
    require_positive,
    require_range,
)
from matcher.errors import UsageError

KINDS = ("pairs", "scannet", "megadepth", "hpatches", "synthetic", "warps")


@dataclass(frozen=True)
class BenchmarkOptions:
    """A file of ``conf/benchmark``."""

    name: str
    kind: str
    """Which reader."""
    root: str | None = None
    max_side: int | None = None
    min_side: int | None = None
    size: tuple[int, int] | None = None
    pose_source: str = "auto"
    """``scannet`` only: ``files``, ``npz``, or ``auto`` (files where they are)."""
    count: int = 0
    """Pairs to render, of benchmarks that are rendered."""
    overlap: tuple[float, float] = (0.1, 0.9)
    """``synthetic`` only: range of the shared part of the images."""
    mix: dict[str, float] = field(
        default_factory=lambda: {"room": 0.4, "street": 0.4, "clutter": 0.2}
    )
    """``synthetic`` only: relative frequency of the kinds of scene."""
    texture_side: int = 384
    """``synthetic`` only: shorter side of the textures in pixels."""
    note: str = ""
    """Shown with every result."""

    def __post_init__(self) -> None:
        require_choice("benchmark.kind", self.kind, KINDS)
        require_choice("benchmark.pose_source", self.pose_source, ("auto", "files", "npz"))
        if not isinstance(self.overlap, tuple) or len(self.overlap) != 2:
            raise invalid("benchmark.overlap", self.overlap, "(low, high)")
        for share in self.overlap:
            require_range("benchmark.overlap", share, 0, 1)
        self.sizing()

    def sizing(self, published: bool = False) -> Sizing:
        return Sizing(self.max_side, self.min_side, self.size, published)

    def folder(self) -> Path:
        if self.root is None:
            raise UsageError(201, "root", f"benchmark {self.name} needs one", "write root=DIR")
        if not Path(self.root).is_dir():
            raise UsageError(111, self.root, "no such folder", "check root=")
        return Path(self.root)


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
