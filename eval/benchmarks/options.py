"""Options of one benchmark, a file of ``conf/benchmark``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from eval.benchmarks.sizing import Sizing
from matcher.config import (
    invalid,
    require_choice,
    require_range,
)
from matcher.errors import Code, UsageError

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
            raise UsageError(
                Code.INVALID_VALUE, "root", f"benchmark {self.name} needs one", "write root=DIR"
            )
        if not Path(self.root).is_dir():
            raise UsageError(Code.MISSING_FILE, self.root, "no such folder", "check root=")
        return Path(self.root)
