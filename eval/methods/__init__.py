"""Matchers by name, all called alike: two RGB images in, `Matches` in their pixels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from eval.methods.base import Method, MethodOptions, MethodUnavailableError
from eval.methods.classical import Orb, RootSift
from eval.methods.function import ImportedFunction
from eval.methods.kornia import Disk, LoftrIndoor, LoftrOutdoor
from eval.methods.peers import Aliked, XFeat
from eval.methods.quadmatch import QuadMatch
from matcher.errors import CheckpointError
from matcher.weights.hub import resolve

__all__ = [
    "ALL",
    "METHODS",
    "Method",
    "MethodOptions",
    "MethodUnavailableError",
    "build_method",
    "check_method",
]

METHODS: Mapping[str, Callable[[MethodOptions], Method]] = {
    method.name: method
    for method in (RootSift, Orb, LoftrOutdoor, LoftrIndoor, Disk, XFeat, Aliked)
}
"""Methods that are no weights of this project's matcher, by name."""
ALL = ("compact", *METHODS)
"""What ``method=all`` stands for; nothing of it is fetched."""


def check_method(name: str, *, offline: bool) -> None:
    """Whether weights of the name or path `name` are there, unless it names something else; errors
    are those of `matcher.weights.hub.resolve`, but for weights that cannot be had."""
    if name not in METHODS and not _is_function(name):
        with suppress(CheckpointError):
            resolve(name, offline=offline)


def build_method(name: str, options: MethodOptions) -> Method:
    """The method called `name`: one of `METHODS`; ``module:function``; otherwise weights of this
    project's matcher by name or path. `MethodUnavailableError` (E210) if it cannot run here."""
    if name in METHODS:
        return METHODS[name](options)
    return ImportedFunction(name) if _is_function(name) else QuadMatch(name, options)


def _is_function(name: str) -> bool:
    return ":" in name and not Path(name).exists()
