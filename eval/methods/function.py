"""Any function of the user as an evaluation method."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from eval.methods.base import Settings
from matcher.errors import Code, UsageError
from matcher.files import sha256_of
from matcher.structures import Matches


class ImportedFunction:
    """A function called `name`, as ``module:function``, that matches two RGB images; `UsageError`
    (E211) if it cannot be imported or is no function."""

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
        digest = sha256_of(source) if source.is_file() else None
        self.settings: Settings = {"method": name, "source": digest}

    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        return self.function(image0, image1)
