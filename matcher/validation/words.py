"""Options of a program as words ``key=value``, and what its help says about them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from matcher.errors import Code, UsageError
from matcher.validation.checked import (
    SHOWN_LENGTH,
    annotations_of,
    config_from_dict,
    expected,
    invalid,
    unknown_option,
)

T = TypeVar("T")
OPTION = re.compile(r"[A-Za-z][\w.]*=")
CONSTANTS = {"null": None, "true": True, "false": False}


def options_from_words(kind: type[T], words: Sequence[str]) -> T:
    """Options of one level, made by `checked`, from words; the last word for an option counts.

    An option that is text takes whatever follows the first ``=``, and where it may be null the
    word ``null``. Other values are as `plain_value` reads them. Words may also be as `key_values`
    takes them, and ``--name`` alone where the option is true or false.

    Raises:
        UsageError: a word without ``=`` (E204), an unknown name (E202, with the nearest one) or a
            value that cannot work (E201).
    """
    kinds = annotations_of(kind)
    values: dict[str, Any] = {}
    for word in key_values(words):
        name, equals, text = word.partition("=")
        flag = word.removeprefix("--").replace("-", "_")
        if flag != word and kinds.get(flag) is bool:
            name, equals, text = flag, "=", "true"
        if not equals or not name.strip(" -"):
            remedy = "write key=value"
            raise UsageError(Code.UNUSABLE_WORD, word[:SHOWN_LENGTH], "is not an option", remedy)
        if name not in kinds:
            raise unknown_option(name, list(kinds))
        verbatim = is_text(kinds[name]) and text != "null"
        values[name] = text if verbatim else plain_value(text)
        if _is_list(kinds[name]) and isinstance(values[name], str):
            remedy = f"{expected(kinds[name])}, in brackets, as in '{name}=[{text[:40]}]'"
            raise invalid(name, text, remedy)
    return config_from_dict(kind, values)


def options_and_images(kind: type[T], words: Sequence[str], names: Sequence[str], usage: str) -> T:
    """Options of `kind` from words of which those without an option's name are its images.

    Args:
        names: of the options that hold the images, in order.
        usage: what is told where there are more or fewer images.

    Raises:
        UsageError: another number of images (E200), or as `options_from_words`.
    """
    words, known = key_values(words), list(annotations_of(kind))
    images = [word for word in words if word.partition("=")[0] not in known]
    unknown = next((word for word in images if "=" in word), None)
    if unknown is not None and len(images) > len(names):
        raise unknown_option(unknown.partition("=")[0], known)
    if len(images) != len(names):
        what = f"got {len(images)} images, not {len(names)}"
        raise UsageError(Code.MISSING_IMAGE, "images", what, usage)
    given = [f"{name}={image}" for name, image in zip(names, images, strict=True)]
    return options_from_words(kind, [*given, *(word for word in words if word not in images)])


def is_text(annotation: Any) -> bool:
    """Whether values of an annotation are text, or null."""
    return all(kind is str or get_origin(kind) is Literal for kind in _kinds(annotation))


def _is_list(annotation: Any) -> bool:
    """Whether values of an annotation are lists, or null."""
    return all(get_origin(kind) is tuple for kind in _kinds(annotation))


def _kinds(annotation: Any) -> list[Any]:
    """What a value of an annotation may be besides null."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for each in get_args(annotation) for kind in _kinds(each)]
    return [] if annotation is NoneType else [annotation]


def key_values(words: Sequence[str]) -> list[str]:
    """Words with ``--name value`` and ``--name=value`` as ``name=value``; others as they are.

    In such names ``-`` is ``_``. What follows ``--name`` is its value unless it begins with ``--``
    or is an option itself.
    """
    out: list[str] = []
    waiting = iter(enumerate(words))
    for index, word in waiting:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        following = words[index + 1] if index + 1 < len(words) else "--"
        if not (word.startswith("--") and name):
            out.append(word)
        elif equals:
            out.append(f"{name}={value}")
        elif following.startswith("--") or OPTION.match(following):
            out.append(word)
        else:
            out.append(f"{name}={following}")
            next(waiting)
    return out


def plain_value(text: str) -> Any:
    """``null``, ``true``, ``false``, a number or a list of these in brackets; else the text."""
    if text.startswith("[") and text.endswith("]"):
        items = text[1:-1].strip()
        return [plain_value(item.strip()) for item in items.split(",")] if items else []
    if text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def describe(kind: type) -> str:
    """The options of a dataclass, a line or two each: name, default and meaning."""
    told = meanings(kind)
    lines = []
    for f in fields(kind):
        option = f"  {f.name}={shown(default_of(f))}"
        text = textwrap.wrap(told.get(f.name, ""), 70) or [""]
        lines.append(f"{option:<28}  {text[0]}".rstrip())
        lines += [f"{'':<28}  {more}" for more in text[1:]]
    return "\n".join(lines)


def meanings(kind: type) -> dict[str, str]:
    """The strings below the fields of a class and of those that it extends, in one line each.

    Choices that a string leaves out stand before it.
    """
    told: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        for before, after in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(before, ast.AnnAssign) and isinstance(text, ast.Constant):
                told[ast.unparse(before.target)] = " ".join(str(text.value).split())
    for name, annotation in annotations_of(kind).items():
        choices = [str(c) for c in get_args(annotation) if get_origin(annotation) is Literal]
        if not all(choice in told.get(name, "") for choice in choices):
            told[name] = f"{', '.join(choices)}: {told.get(name, '')}"
    return told


def default_of(field: Field[Any]) -> Any:
    """The default of a field; "..." for one that must be given."""
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else "..."


def shown(value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(map(shown, value)) + "]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return '""' if value == "" else str(value)


def is_number(text: str) -> bool:
    """Whether a text, such as a cell of a table, is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
