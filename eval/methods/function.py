"""Any function of the user as an evaluation method."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from eval.methods.base import Settings
from eval.source import source_digest
from matcher.errors import Code, UsageError
from matcher.structures import Matches


class ImportedFunction:
    """A function called `name`, as ``module:function``, that matches two RGB images; `UsageError`
    (E211) if it cannot be imported or is no function.

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
        except (ImportError, AttributeError) as error:
            what = f"cannot import: {error}"
            raise UsageError(Code.UNUSABLE_METHOD, name, what, "write module:function") from error
        if not callable(function):
            raise UsageError(Code.UNUSABLE_METHOD, name, "is not callable", "write module:function")
        self.function = cast(Callable[[np.ndarray, np.ndarray], Matches], function)
        source = Path(getattr(module, "__file__", None) or "")
        files = sorted(source.parent.glob("*.py")) if source.is_file() else []
        self.settings: Settings = {"method": name, "source": source_digest(files)}

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        return self.function(image0, image1)
