"""Every option that docs/configuration.md lists is accepted as written, and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from conf import compose
from data.config import SOURCES, DataConfig
from eval.__main__ import read_options
from matcher.batch.options import CollectionOptions
from matcher.errors import UsageError
from matcher.options import MatchOptions
from matcher.training.config import RunConfig
from matcher.validation.checked import config_from_dict
from matcher.validation.words import options_from_words

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text("utf-8")
NESTED = "[[x]]"
"""Of the wrong type for every option but text that is taken as it is."""
VERBATIM = {"method", "protocol", "output", "document", "xfeat", "aliked"}
"""Options of the evaluation that are text, or lists of it between commas."""
Refuse = Callable[[list[str]], Any]


def options(title: str) -> dict[str, str]:
    """The options and the defaults under the titles of the page that begin so."""
    parts = [part for part in PAGE.split("\n## ") if part.startswith(title)]
    return dict(re.findall(r"^\| `([\w.]+)` \| `([^`]*)` \|", "\n".join(parts), re.MULTILINE))


def trained(words: list[str]) -> tuple[RunConfig, DataConfig]:
    """Options of train.py."""
    values = compose("train", words)
    data = config_from_dict(DataConfig, values.pop("data"))
    return config_from_dict(RunConfig, values), data


PAIR, COLLECTION = options("Matching: "), options("Matching a collection")
TRAINING, EVALUATION = options("Training") | options("The model"), options("Evaluation")


def words_of(listed: dict[str, str]) -> list[str]:
    """As a shell hands them over, which takes the quotes of an empty text."""
    given = {name: default.replace('""', "") for name, default in listed.items()}
    return [f"{name}={default}" for name, default in given.items() if default != "..."]


def test_the_page_is_read() -> None:
    assert (len(PAIR), len(COLLECTION)) == (31, 43)
    assert len(TRAINING) > 100
    assert len(EVALUATION) == 22


def test_match_takes_every_option_as_written() -> None:
    assert options_from_words(MatchOptions, words_of(PAIR)) == MatchOptions()
    collection = options_from_words(CollectionOptions, ["pairs=x", *words_of(COLLECTION)])
    assert collection == CollectionOptions(pairs="x")


@pytest.mark.parametrize("source", ["synthetic", *SOURCES])
def test_train_takes_every_option_as_written(source: str) -> None:
    listed = {name: default for name, default in TRAINING.items() if name != "data.source"}
    run, data = trained([f"data={source}", *words_of(listed)])
    assert run == RunConfig()
    assert data == DataConfig(source=source)  # pyright: ignore[reportArgumentType]


def test_eval_takes_every_option_as_written() -> None:
    words = [word.replace("[", "").replace("]", "") for word in words_of(EVALUATION)]
    (plan,) = read_options(["benchmark=synthetic", *words])
    (plain,) = read_options([])
    assert plan == plain


def refused(read: Refuse, name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        read([f"{name}={value}"])
    message = str(caught.value)
    assert message.startswith("E201 ")
    assert "\n" not in message
    assert name.endswith(caught.value.subject)


@pytest.mark.parametrize("name", [*PAIR])
def test_match_refuses_another_type(name: str) -> None:
    text = {"weights", "mask0", "mask1", "output", "picture", "points", "cameras"}
    refused(lambda w: options_from_words(MatchOptions, w), name, "" if name in text else NESTED)


@pytest.mark.parametrize("name", [*COLLECTION])
def test_a_collection_refuses_another_type(name: str) -> None:
    text = {"pairs", "against", "root", "output", "weights", "cameras", "masks", "model"}
    refused(
        lambda w: options_from_words(CollectionOptions, [*(["pairs=x"] * (name != "pairs")), *w]),
        name,
        "" if name in text else NESTED,
    )


@pytest.mark.parametrize("name", [*EVALUATION])
def test_eval_refuses_another_type(name: str) -> None:
    refused(read_options, name, "" if name in VERBATIM else NESTED)


def test_train_refuses_another_type() -> None:
    """Composed once; the values are those that the word ``name=[[x]]`` leaves there."""
    composed = compose("train")
    for name in TRAINING:
        tree = deepcopy(composed)
        *groups, last = name.split(".")
        group = tree
        for key in groups:
            group = group[key]
        group[last] = [["x"]]

        def check(_: list[str], tree: dict[str, Any] = tree) -> None:
            config_from_dict(DataConfig, tree.pop("data"), "data.")
            config_from_dict(RunConfig, tree)

        refused(check, name, NESTED)


def test_the_recipe_with_other_light_composes() -> None:
    _, data = trained(["data=colmap", "data.files.augment=1"])
    assert data.files.augment == 1
    assert get_type_hints(DataConfig)["files"] is type(data.files)
