"""The options of match.py for collections, validated before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass

from matcher.batch.pairs import SELECTIONS
from matcher.config import (
    invalid,
    require_choice,
    require_positive,
    require_range,
)
from matcher.options import MatchOptions

EXPORTS = ("none", "pack", "hloc", "colmap")
ENGINES = ("local", "ray")
PATHS = ("pairs", "against", "root", "output", "weights")
"""Options whose value is taken as it is, whatever characters it holds."""


@dataclass(frozen=True)
class CollectionOptions:
    """How a collection is matched; ``conf/pairs.yaml`` explains the options."""

    pairs: str = ""
    against: str | None = None
    select: str = "exhaustive"
    window: int = 5
    root: str | None = None
    allow_outside_root: bool = False
    skip_missing: bool = False
    output: str = "matches"
    weights: str = "compact"
    device: str | None = None
    offline: bool = False
    threads: int | None = None
    threshold: float | None = None
    max_side: int | None = 1024
    top_k: int | None = None
    apply_exif: bool = False
    allow_truncated: bool = False
    batch_size: int = 4
    shard_size: int = 32
    cache_mb: int = 2048
    readers: int = 2
    engine: str = "local"
    workers: int = 2
    export: str = "none"
    merge: float = 1.0
    K: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("pairs", "output"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise invalid(name, getattr(self, name), "a name")
        for name in ("against", "root"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise invalid(name, getattr(self, name), "a name or null")
        require_choice("select", self.select, SELECTIONS)
        require_choice("engine", self.engine, ENGINES)
        require_choice("export", self.export, EXPORTS)
        for name in ("window", "batch_size", "shard_size", "cache_mb", "readers", "workers"):
            require_positive(name, getattr(self, name))
        if self.threads is not None:
            require_positive("threads", self.threads)
        require_range("merge", self.merge, 0.1, 100.0)
        if self.shard_size > 1000:
            raise invalid("shard_size", self.shard_size, "at most 1000")
        # What the options have in common with those of one pair is checked there.
        same = MatchOptions(
            **{
                name: getattr(self, name)
                for name in ("weights", "device", "offline", "threshold", "max_side", "top_k")
            },
            apply_exif=self.apply_exif,
            allow_truncated=self.allow_truncated,
            K=self.K,
        )
        object.__setattr__(self, "K", same.K)

    @property
    def camera(self) -> tuple[float, float, float, float] | None:
        """(fx, fy, cx, cy) of `K`."""
        if self.K is None or len(self.K) == 4:
            return self.K
        return self.K[0], self.K[4], self.K[2], self.K[5]

    @property
    def settings(self) -> dict[str, int | float | bool | None]:
        """Those that change results."""
        names = ("threshold", "max_side", "top_k", "apply_exif", "allow_truncated", "batch_size")
        return {name: getattr(self, name) for name in names}
