"""The same as `matcher`, under the name that one installs.

import quadmatch

matches = quadmatch.load_matcher("compact").match("a.jpg", "b.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matcher
from matcher import __all__ as __all__
from matcher import __version__ as __version__

if TYPE_CHECKING:
    from matcher import FeatureMatcher as FeatureMatcher
    from matcher import LocatedPoints as LocatedPoints
    from matcher import MatcherConfig as MatcherConfig
    from matcher import Matches as Matches
    from matcher import Predictor as Predictor
    from matcher import build_matcher as build_matcher
    from matcher import judge as judge
    from matcher import load_matcher as load_matcher
    from matcher import locate as locate


def __getattr__(name: str) -> Any:
    """Import on first use, as `matcher` does."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(matcher, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
