"""Detector-free image matching with QuadTree attention: two images in, correspondences out.

from matcher import judge, load_matcher

matches = load_matcher("compact").match("a.jpg", "b.jpg")
print(len(matches), judge(matches))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from matcher.config import MatcherConfig
    from matcher.geometry.verdict import judge
    from matcher.network.model import FeatureMatcher, build_matcher
    from matcher.predictor import Predictor, load_matcher, locate
    from matcher.structures import LocatedPoints, Matches

_HOMES = {
    "FeatureMatcher": "matcher.network.model",
    "MatcherConfig": "matcher.config",
    "LocatedPoints": "matcher.structures",
    "Matches": "matcher.structures",
    "Predictor": "matcher.predictor",
    "build_matcher": "matcher.network.model",
    "judge": "matcher.geometry.verdict",
    "load_matcher": "matcher.predictor",
    "locate": "matcher.predictor",
}

__all__ = [
    "FeatureMatcher",
    "LocatedPoints",
    "MatcherConfig",
    "Matches",
    "Predictor",
    "build_matcher",
    "judge",
    "load_matcher",
    "locate",
]


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and options are checked before that."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
