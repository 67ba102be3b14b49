"""Frozen dataclasses whose annotations are their checks.

Pydantic compares every value with its annotation, strictly; what it finds becomes one `UsageError`
of one line that names the option. Checks between options stand in ``__post_init__``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache, wraps
from numbers import Integral
from operator import index
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo

from matcher.errors import Code, UsageError

T = TypeVar("T")

LARGEST = 2**31 - 1
"""Of whole numbers: more than anybody needs, and what every library behind an option can hold."""
MOST_THREADS = 256
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
NotNegative = Annotated[int, Field(ge=0, le=LARGEST)]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
"""Threads or processes: many more than there are cores bring a machine down."""
Workers = Annotated[int, Field(ge=0, le=MOST_THREADS)]
"""Likewise, or none."""
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, description="a name")]
JsonFile = Annotated[
    str, Field(pattern=r"^$|(?i:\.json)$", description="a name that ends in .json, or none")
]
"""Where figures go; a name of another kind may be that of an image or of a list that is read."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
SYNONYMS = {
    **dict.fromkeys(("resize", "size", "image_size", "imsize", "long_side"), "max_side"),
    **dict.fromkeys(("conf", "confidence", "conf_threshold", "match_threshold"), "threshold"),
    **dict.fromkeys(("max_keypoints", "max_matches", "num_matches"), "top_k"),
    **dict.fromkeys(("intrinsics", "camera"), "K"),
    **dict.fromkeys(("ckpt", "checkpoint"), "weights"),
}
"""What others call options of ours."""
SHOWN_LENGTH = 200
"""Characters of a value in a message, at most."""
PLAIN = {bool: "true or false", int: "an integer", str: "text", NoneType: "null"}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def checked(prefix: str = "") -> Callable[[type[T]], type[T]]:
    """A decorator that makes a frozen dataclass and checks its values on construction.

    Constructing it raises `UsageError` for a value that its annotation excludes (E201) or for an
    unknown name (E202).

    Args:
        prefix: of the names of its options in messages, such as ``transformer.``.
    """

    def decorate(cls: type[T]) -> type[T]:
        made: Any = pydantic_dataclass(frozen=True, config=STRICT)(cls)
        construct = made.__init__
        annotations_of(made)  # Evaluated here: to refuse a value compiles nothing.

        @wraps(construct)
        def check(self: T, *args: Any, **values: Any) -> None:
            args = tuple(map(_plain, args))
            values = {name: _plain(value) for name, value in values.items()}
            try:
                construct(self, *args, **values)
            except ValidationError as error:
                names = [f.name for f in fields(made)]
                given = {**dict(zip(names, args, strict=False)), **values}
                raise _usage_error(made, prefix, error, given) from None

        made.__init__ = check
        return made

    return decorate


def invalid(option: str, value: object, expected: str) -> UsageError:
    """The error for an option with a value that cannot work."""
    text = repr(value)
    if len(text) > SHOWN_LENGTH:
        text = f"{text[:SHOWN_LENGTH]}... ({len(text)} characters)"
    return UsageError(Code.INVALID_VALUE, option, f"got {text}", f"expected {expected}")


def entry_of(option: str, name: str, table: Mapping[str, T]) -> T:
    """What a table has under the name that an option gives, or E201 with the names there are."""
    if name not in table:
        raise invalid(option, name, f"one of {', '.join(table)}")
    return table[name]


def unknown_option(name: str, known: Sequence[str], path: str = "") -> UsageError:
    """The error for a name that is no option, with the nearest one that is."""
    near = nearest_option(name, known)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"
    return UsageError(Code.UNKNOWN_OPTION, f"{path}{name}"[:SHOWN_LENGTH], "unknown option", hint)


def nearest_option(name: str, known: Sequence[str]) -> str | None:
    """The one of the `known` options that `name` probably means: another word for it, or nearly
    the same letters."""
    meant = SYNONYMS.get(name)
    if meant in known:
        return meant
    return next(iter(get_close_matches(name, known, n=1, cutoff=0.52)), None)


def config_from_dict(kind: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """A (nested) dataclass of options, made by `checked`, from plain values of YAML or JSON.

    Raises:
        UsageError: an unknown key (with the nearest valid one, below the dotted `path`) or a value
            that cannot work.
    """
    if not isinstance(values, Mapping):
        raise invalid(path.rstrip(".") or kind.__name__, values, "a group of options")
    kinds = annotations_of(kind)
    parts: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            raise unknown_option(str(name), list(kinds), path)
        if is_dataclass(kinds[name]):
            parts[name] = config_from_dict(kinds[name], value, f"{path}{name}.")
        else:
            parts[name] = value
    return kind(**parts)


@cache
def annotations_of(kind: type) -> Mapping[str, Any]:
    """The annotation of every field of a dataclass, in order."""
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(kind)}


def expected(annotation: Any) -> str:
    """What a value of an annotation looks like, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        field_info = next(extra for extra in arguments[1:] if isinstance(extra, FieldInfo))
        if field_info.description:
            return field_info.description
        bounds = {k: v for m in field_info.metadata for k, v in asdict(m).items()}
        return _number(arguments[0], **bounds)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(map(expected, arguments))
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{count}, each {expected(arguments[0])}"
    if origin is dict:
        return f"a group, each {expected(arguments[1])}"
    return _number(float) if annotation is float else PLAIN[annotation]


def _usage_error(
    kind: type, prefix: str, error: ValidationError, given: Mapping[str, Any]
) -> UsageError:
    """The first fault that pydantic found in the values `given` to a dataclass."""
    kinds = annotations_of(kind)
    name, *inner = error.errors(include_url=False)[0]["loc"]
    name = list(kinds)[name] if isinstance(name, int) else name
    if name not in kinds:
        return unknown_option(str(name), list(kinds), prefix)
    option, annotation = f"{prefix}{name}", kinds[name]
    if name not in given:
        remedy = f"expected {expected(annotation)}"
        return UsageError(Code.INVALID_VALUE, option, "is not set", remedy)
    value = given[name]
    for key in inner:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is dict:
            of_key = inner[-1] == "[key]"
            return _unfit(option, key if of_key else value[key], arguments[0 if of_key else 1])
        if origin is not tuple or not isinstance(key, int) or key >= len(value):
            break
        value = value[key]
        annotation = arguments[0 if arguments[-1] is Ellipsis else key]
    return _unfit(option, value, annotation)


def _unfit(option: str, value: object, annotation: Any) -> UsageError:
    if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        return invalid(option, value, "UTF-8: rename it, or set LC_ALL to a locale of UTF-8")
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    near = get_close_matches(str(value), map(str, choices), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return invalid(option, value, f"{expected(annotation)}{hint}")


def _number(
    kind: type, ge: float | None = None, le: float | None = None, multiple_of: int | None = None
) -> str:
    text = "an integer" if kind is int else "a finite number"
    if ge is not None:
        text += f" of at least {ge}" if le in (None, LARGEST) else f" from {kind(ge)} to {kind(le)}"
        text += " and below 2^31" if le == LARGEST else ""
    return text if multiple_of is None else f"{text}, a multiple of {multiple_of}"


def _plain(value: Any) -> Any:
    """Values of NumPy and torch, which pydantic does not know, as Python's, and lists as tuples; of
    an array its numbers row by row."""
    if hasattr(value, "tolist"):
        flat = getattr(value, "ndim", 1) > 1
        value = (value.reshape(-1) if flat else value).tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    foreign = isinstance(value, Integral) and not isinstance(value, int)
    return index(value) if foreign else value
