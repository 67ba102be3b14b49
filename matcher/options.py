"""The options of match.py, validated before anything heavy is imported or read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from matcher.config import (
    config_from_dict,
    invalid,
    require_choice,
    require_positive,
    require_range,
)
from matcher.errors import Code, UsageError
from matcher.results.formats import FORMATS, PICTURE_SUFFIXES

T = TypeVar("T")
GEOMETRIES = ("none", "homography", "fundamental", "essential")
STYLES = ("matches", "overlay", "coverage", "warp", "epipolar")
MODEL_OF_STYLE = {"warp": ("homography",), "epipolar": ("fundamental", "essential")}
PATHS = ("output", "picture", "mask0", "mask1", "weights")
"""Options whose value is taken as it is, whatever characters it holds."""


@dataclass(frozen=True)
class MatchOptions:
    """How one pair is matched; ``conf/match.yaml`` holds the same defaults and explains them."""

    weights: str = "compact"
    device: str | None = None
    offline: bool = False
    threshold: float | None = None
    max_side: int | None = 1024
    top_k: int | None = None
    apply_exif: bool = False
    allow_truncated: bool = False
    mask0: str | None = None
    mask1: str | None = None
    geometry: str = "none"
    estimator: str = "poselib"
    ransac_threshold: float = 1.0
    K: tuple[float, ...] | None = None
    K0: tuple[float, ...] | None = None
    K1: tuple[float, ...] | None = None
    output: str | None = "matches.h5"
    picture: str | None = "auto"
    style: str = "matches"
    lines: int = 200

    def __post_init__(self) -> None:
        self._check_types()
        if self.threshold is not None:
            require_range("threshold", self.threshold, 0.0, 1.0)
        for name in ("max_side", "top_k"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        require_positive("lines", self.lines)
        require_choice("geometry", self.geometry, GEOMETRIES)
        require_choice("estimator", self.estimator, ("poselib", "magsac"))
        require_choice("style", self.style, STYLES)
        require_range("ransac_threshold", self.ransac_threshold, 1e-3, 1e3)
        if self.device and not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", self.device):
            raise invalid("device", self.device, "cpu, cuda, cuda:<number>, mps or null")
        self._check_intrinsics()
        self._check_files()

    def _check_types(self) -> None:
        for name in ("weights", "geometry", "estimator", "style"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise invalid(name, getattr(self, name), "a name")
        for name in ("device", "output", "picture", "mask0", "mask1"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise invalid(name, value, "a name or null")

    def _check_intrinsics(self) -> None:
        for name in ("K", "K0", "K1"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _intrinsics(name, getattr(self, name)))
        if self.K and (self.K0 or self.K1):
            raise invalid("K", self.K, "either K for both images, or K0 and K1")
        if self.geometry == "essential" and not (self.K or (self.K0 and self.K1)):
            raise invalid("K", None, "[fx,fy,cx,cy] in pixels with geometry=essential")

    def _check_files(self) -> None:
        if self.output and Path(self.output).suffix.lower() not in FORMATS:
            raise invalid("output", self.output, f"a name ending in {', '.join(FORMATS)}")
        path = self.picture_path
        if path and path.suffix.lower() not in PICTURE_SUFFIXES:
            raise invalid(
                "picture", self.picture, f"a name ending in {', '.join(PICTURE_SUFFIXES)}"
            )
        if path and self.output and path == Path(self.output):
            raise invalid("picture", self.picture, "another file than output")
        if self.geometry not in MODEL_OF_STYLE.get(self.style, (self.geometry,)):
            needed = " or ".join(MODEL_OF_STYLE[self.style])
            raise invalid("style", self.style, f"geometry={needed} with it, not {self.geometry}")

    @property
    def picture_path(self) -> Path | None:
        if self.picture != "auto":
            return Path(self.picture) if self.picture else None
        return Path(self.output).with_suffix(".png") if self.output else None

    @property
    def intrinsics(self) -> tuple[list[list[float]], list[list[float]]]:
        """(3, 3) of both images; `K` or `K0` and `K1` must be set."""
        first, second = self.K0 or self.K, self.K1 or self.K
        if first is None or second is None:
            raise invalid("K", None, "[fx,fy,cx,cy] in pixels")
        return _rows(first), _rows(second)

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def options_from(values: Mapping[str, Any]) -> MatchOptions:
    """Options from composed values.

    Raises:
        UsageError: an unknown name (with the nearest valid one) or a value that cannot work.
    """
    return build_options(MatchOptions, values)


def build_options(kind: type[T], values: Mapping[str, Any]) -> T:
    """Options of a dataclass from composed values; errors as `options_from`."""
    for name in values:
        require_known(name, kind)
    return config_from_dict(kind, values)


def require_known(name: str, kind: type = MatchOptions) -> None:
    known = [f.name for f in fields(kind)]
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise UsageError(Code.UNKNOWN_OPTION, name, "unknown option", hint)


def _intrinsics(name: str, value: Any) -> tuple[float, ...]:
    expected = "[fx,fy,cx,cy] or nine numbers row by row, fx and fy above 0, no skew"
    if not isinstance(value, tuple) or len(value) not in (4, 9):
        raise invalid(name, value, expected)
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in value):
        raise invalid(name, value, expected)
    fx, fy = value[0], value[1 if len(value) == 4 else 4]
    if (
        not all(math.isfinite(v) for v in value)
        or min(fx, fy) <= 0
        or (len(value) == 9 and (value[1], value[3], *value[6:]) != (0, 0, 0, 0, 1))
    ):
        raise invalid(name, value, expected)
    return tuple(float(v) for v in value)


def _rows(K: tuple[float, ...]) -> list[list[float]]:
    if len(K) == 9:
        return [list(K[i : i + 3]) for i in (0, 3, 6)]
    fx, fy, cx, cy = K
    return [[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]
