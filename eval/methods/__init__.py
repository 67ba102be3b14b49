"""Matchers by name, all called alike: two RGB images in, `Matches` in their pixels out."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import matcher
from eval.methods.classical import Orb, RootSift
from eval.methods.kornia import Disk, KorniaLoftr, LoftrIndoor, LoftrOutdoor
from eval.methods.quadmatch import QuadMatch
from matcher.errors import Code, MatcherError, UsageError
from matcher.structures import Matches

Function = Callable[[np.ndarray, np.ndarray], Matches]
"""(H, W, 3) uint8 RGB images to matches in pixels of these images, centre of the first (0, 0)."""

CLASSICAL: Mapping[str, type] = {"rootsift": RootSift, "orb": Orb}
KORNIA: Mapping[str, Callable[..., KorniaLoftr | Disk]] = {
    "kornia_loftr_outdoor": LoftrOutdoor,
    "kornia_loftr_indoor": LoftrIndoor,
    "kornia_disk": Disk,
}
OFFLINE = ("compact", *CLASSICAL, *KORNIA)
"""What ``method=all`` stands for."""
NOT_HERE = (Code.NOT_FETCHED, Code.NOT_CACHED)
"""Errors of weights that could not be fetched."""


@dataclass(frozen=True)
class MethodOptions:
    """What every method may be told."""

    keypoints: int = 4096
    """Most keypoints an image of the methods with detectors."""
    ratio: float = 0.85
    """Largest ratio of the distances to the nearest and the second nearest descriptor."""
    threshold: float | None = None
    """Confidence of this project's matcher; None: the weights' own."""
    device: str | None = None
    offline: bool = True
    padded: bool = False
    """Pad images to squares, as the published evaluation of MegaDepth does."""


@dataclass(frozen=True)
class Method:
    """A matcher and everything that decides what it answers."""

    name: str
    match: Function
    settings: dict[str, str | int | float | bool | None]
    weights_sha256: str | None = None
    device: str = "cpu"
    """What it computes on."""


class MethodUnavailableError(UsageError):
    """A method that is known but cannot run here, such as for want of its weights (E210)."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(Code.MISSING_EXTRA, name, f"unavailable: {why}")
        self.why = why

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return type(self), (self.subject, self.why)


def build_method(name: str, options: MethodOptions) -> Method:
    """The method called `name`.

    Args:
        name: ``rootsift``, ``orb``, ``kornia_loftr_outdoor``, ``kornia_loftr_indoor``,
            ``kornia_disk``; ``module:function``; otherwise weights of this project's matcher by
            name or path, whose configuration comes with them.
        options: how it is to run.

    Raises:
        MethodUnavailableError: known, but cannot run here.
        UsageError: unknown.
    """
    if name in CLASSICAL:
        settings = {"keypoints": options.keypoints, "ratio": options.ratio}
        return Method(name, CLASSICAL[name](**settings), {"method": name, **settings})
    if name in KORNIA:
        try:
            method = KORNIA[name](device=options.device, keypoints=options.keypoints)
        except (FileNotFoundError, ImportError) as error:
            raise MethodUnavailableError(name, str(error)) from error
        settings = {"method": name, **method.settings}
        return Method(name, method, settings, method.weights_sha256, str(method.device))
    if ":" in name and not Path(name).exists():
        return _imported(name)
    try:
        learned = QuadMatch(
            name,
            device=options.device,
            threshold=options.threshold,
            offline=options.offline,
            padded=options.padded,
        )
    except MatcherError as error:
        if error.code not in NOT_HERE:
            raise
        raise MethodUnavailableError(name, str(error)) from error
    settings = {
        "method": "quadmatch",
        "weights_sha256": learned.weights_sha256,
        "threshold": learned.threshold,
        "padded": options.padded,
        "source": source_digest(),
    }
    device = str(learned.predictor.device)
    return Method(name, learned, settings, learned.weights_sha256, device)


def _imported(name: str) -> Method:
    module, _, attribute = name.partition(":")
    try:
        function: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            Code.UNUSABLE_METHOD, name, f"cannot import: {error}", "write module:function"
        ) from error
    if not callable(function):
        raise UsageError(Code.UNUSABLE_METHOD, name, "is not callable", "write module:function")
    source = Path(getattr(importlib.import_module(module), "__file__", None) or "")
    digest = hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else None
    match: Function = function  # pyright: ignore[reportAssignmentType]
    return Method(name, match, {"method": name, "source": digest}, device="its own choice")


def source_digest() -> str:
    """Changes with the code of this project's matcher, so that old predictions are not reused."""
    folder = Path(matcher.__file__ or "").parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
