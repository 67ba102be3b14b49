"""Any function of the user as an evaluation method."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from eval.methods.base import Settings
from eval.source import source_digest
from matcher.errors import Code, MatcherError, UsageError, out_of_memory
from matcher.structures import Matches

FORM = "write module:function"


class ImportedFunction:
    """A function called `name`, as ``module:function``, that matches two RGB images; `UsageError`
    (E211) if it cannot be imported or is no function, and later if it fails or returns anything
    else.

    What it answers is taken to depend on the Python files in the folder of its module; where it
    depends on more, such as weights, ``overwrite=true`` asks it again.
    """

    weights_sha256 = None
    device = "its own choice"

    def __init__(self, name: str) -> None:
        self.name = name
        path, _, attribute = name.partition(":")
        try:
            module = importlib.import_module(path)
            function: Any = getattr(module, attribute)
        except Exception as error:  # Whatever a module of the user does.
            raise self._fault("cannot be imported", error) from error
        if not callable(function):
            raise UsageError(Code.UNUSABLE_METHOD, name, "is not callable", FORM)
        self.function = cast(Callable[[np.ndarray, np.ndarray], Matches], function)
        source = Path(getattr(module, "__file__", None) or "")
        files = sorted(source.parent.glob("*.py")) if source.is_file() else []
        self.settings: Settings = {"method": name, "source": source_digest(files)}

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        try:
            matches = self.function(image0, image1)
        except Exception as error:
            if isinstance(error, MatcherError) or out_of_memory(error):
                raise
            raise self._fault("failed", error) from error
        if not isinstance(matches, Matches):
            what = f"returned {type(matches).__name__}, not matcher.Matches"
            raise UsageError(Code.UNUSABLE_METHOD, self.name, what)
        return matches

    def _fault(self, what: str, error: Exception) -> UsageError:
        told = f"{what}: {type(error).__name__}: {error}"
        return UsageError(Code.UNUSABLE_METHOD, self.name, told, f"{FORM}; --debug shows where")
