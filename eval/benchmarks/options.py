"""Options of one benchmark, a file of ``conf/benchmark``."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from data.config import Layout
from eval.benchmarks.sizing import EXACT, Convention, Sizing
from matcher.errors import Code, UsageError, missing
from matcher.validation.checked import NotNegative, Positive, Share, checked

Kind = Literal["pairs", "scannet", "megadepth", "hpatches", "colmap", "synthetic", "warps"]
Frequency = Annotated[float, Field(ge=0)]


@checked("benchmark.")
class BenchmarkOptions:
    """A file of ``conf/benchmark``."""

    name: str
    """Name in results."""
    kind: Kind
    """Reader."""
    root: str | None = None
    """Folder of the data, or of the photographs of a rendered benchmark."""
    max_side: Positive | None = None
    """Shrink images so that the longer side is at most this."""
    min_side: Positive | None = None
    """Resize images so that the shorter side is this."""
    size: Annotated[tuple[Positive, Positive], Field(description="(width, height)")] | None = None
    """Resize images to exactly (width, height)."""
    pose_source: Literal["auto", "files", "npz"] = "auto"
    """``scannet`` only: ``files``, ``npz``, or ``auto`` (files where they are)."""
    count: NotNegative = 0
    """Pairs to render, of benchmarks that are rendered; ``colmap``: to draw; 0: all."""
    overlap: Annotated[tuple[Share, Share], Field(description="(low, high) in 0..1")] = (0.1, 0.9)
    """``synthetic``, ``colmap``: range of the shared part of the images."""
    pictures: tuple[str, ...] = ("*",)
    """``colmap`` only: pictures to use, ``scene/name``; ``*`` and ``?`` as in a shell."""
    mix: dict[Layout, Frequency] = field(
        default_factory=lambda: {"room": 0.4, "street": 0.4, "clutter": 0.2}
    )
    """``synthetic`` only: relative frequency of the kinds of scene."""
    texture_side: Annotated[int, Field(ge=32, multiple_of=32)] = 384
    """``synthetic`` only: shorter side of the textures in pixels."""
    note: str = ""
    """Shown with every result."""

    def __post_init__(self) -> None:
        self.sizing()

    def sizing(self, convention: Convention = EXACT) -> Sizing:
        return Sizing(self.max_side, self.min_side, self.size, convention)

    def folder(self) -> Path:
        if self.root is None:
            what = f"benchmark {self.name} needs one"
            raise UsageError(Code.INVALID_VALUE, "root", what, "write root=DIR")
        if not Path(self.root).is_dir():
            raise missing(self.root, "no such folder", "check root=")
        return Path(self.root)
