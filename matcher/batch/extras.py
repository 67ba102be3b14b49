"""Packages that only some exports and engines need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from matcher.errors import UsageError


def require_extra(module: str, extra: str, option: str) -> Any:
    """A module of an optional dependency.

    Args:
        module: its name.
        extra: of this project, that installs it.
        option: what asks for it.

    Raises:
        UsageError: it is not installed (E210).
    """
    try:
        return import_module(module)
    except ImportError as error:
        remedy = f'pip install "quadmatch[{extra}]"'
        raise UsageError(210, option, f"needs {module}, which is not installed", remedy) from error
