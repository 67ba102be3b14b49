"""Matchers by name, all called alike: two RGB images in, `Matches` in their pixels out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from eval.methods.base import Method, MethodOptions, MethodUnavailableError
from eval.methods.classical import Orb, RootSift
from eval.methods.function import ImportedFunction
from eval.methods.kornia import Disk, LoftrIndoor, LoftrOutdoor
from eval.methods.peers import Aliked, XFeat
from eval.methods.quadmatch import QuadMatch

__all__ = ["ALL", "METHODS", "Method", "MethodOptions", "MethodUnavailableError", "build_method"]

METHODS: Mapping[str, Callable[[MethodOptions], Method]] = {
    method.name: method
    for method in (RootSift, Orb, LoftrOutdoor, LoftrIndoor, Disk, XFeat, Aliked)
}
"""Methods that are no weights of this project's matcher, by name."""
ALL = ("compact", *METHODS)
"""What ``method=all`` stands for; nothing of it is fetched."""


def build_method(name: str, options: MethodOptions) -> Method:
    """The method called `name`: one of `METHODS`; ``module:function``; otherwise weights of this
    project's matcher by name or path. `MethodUnavailableError` (E210) if it cannot run here."""
    if name in METHODS:
        return METHODS[name](options)
    if ":" in name and not Path(name).exists():
        return ImportedFunction(name)
    return QuadMatch(name, options)
