"""Dataclasses that check themselves: what they refuse, and in which words."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from pydantic import Field

from matcher.errors import UsageError
from matcher.validation.checked import Positive, Share, checked, config_from_dict, invalid
from matcher.validation.words import describe, options_from_words, plain_value

COUNT = "expected an integer of at least 1 and below 2^31"


@checked("part.")
class Part:
    count: Positive = 1
    """How many."""
    layers: tuple[Literal["self", "cross"], ...] = ("self",)
    sides: tuple[Annotated[int, Field(ge=8, multiple_of=8)], int] = (8, 8)
    share: Share | None = None
    mix: dict[Literal["a", "b"], float] | None = None

    def __post_init__(self) -> None:
        if self.count == 13:
            raise invalid("part.count", self.count, "another number")


@checked()
class Whole:
    name: str
    part: Part = Part()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, f"E201 part.count: got 0; {COUNT}"),
        ({"count": True}, f"E201 part.count: got True; {COUNT}"),
        ({"count": 1.0}, f"E201 part.count: got 1.0; {COUNT}"),
        ({"count": 13}, "E201 part.count: got 13; expected another number"),
        ({"layers": ("self", "crss")}, "E201 part.layers: got 'crss'; expected one of self, cross "
         "(did you mean 'cross'?)"),
        ({"sides": (9, 1)}, "E201 part.sides: got 9; expected an integer of at least 8, a multiple "
         "of 8"),
        ({"share": float("nan")}, "E201 part.share: got nan; expected a finite number from 0.0 to "
         "1.0 or null"),
        ({"cuont": 1}, "E202 part.cuont: unknown option; did you mean 'count'?"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_work_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Part(**values)
    assert str(caught.value) == message


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    part = Part(count=np.int64(3), sides=(np.uint8(8), np.int32(5)))  # pyright: ignore[reportArgumentType]
    assert part == Part(count=3, sides=(8, 5))
    assert type(part.count) is int


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_lists_arrays_and_tensors_are_what_they_hold(kind: Callable[..., Any]) -> None:
    part = Part(sides=kind([8, 5]), count=np.array(3))  # pyright: ignore[reportArgumentType]
    assert part == Part(count=3, sides=(8, 5))
    assert (type(part.count), type(part.sides)) == (int, tuple)


def test_an_option_without_default_must_be_set() -> None:
    with pytest.raises(UsageError, match="E201 name: is not set; expected text"):
        config_from_dict(Whole, {})


def test_a_checked_dataclass_is_frozen_and_can_be_copied() -> None:
    part = Part(count=2)
    assert pickle.loads(pickle.dumps(part)) == replace(Part(), count=2) == part
    with pytest.raises(FrozenInstanceError):
        part.count = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_lists_of_files_are_tuples_and_groups_are_built() -> None:
    whole = config_from_dict(Whole, {"name": "x", "part": {"layers": ["cross"], "sides": [16, 1]}})
    assert whole == Whole("x", Part(layers=("cross",), sides=(16, 1)))


@pytest.mark.parametrize(
    ("text", "value"),
    [("null", None), ("TRUE", True), ("1e-3", 1e-3), ("-7", -7), ("[1, 2.5,x]", [1, 2.5, "x"]),
     ("[]", []), ("[0.3", "[0.3"), ("a b", "a b"), ("{a: 1}", "{a: 1}")],
)  # fmt: skip
def test_words_hold_plain_values(text: str, value: object) -> None:
    assert plain_value(text) == value


def test_the_last_word_for_an_option_counts_and_help_tells_its_meaning() -> None:
    assert options_from_words(Part, ["count=2", "count=3"]) == Part(count=3)
    assert "  count=1                     How many." in describe(Part).splitlines()
