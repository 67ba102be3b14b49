"""Words of a command line: what they may look like, and what is said of those that cannot be."""

from __future__ import annotations

import pytest

from conf import compose, plain_options
from eval.__main__ import read_options
from eval.attention_kinds.__main__ import KindsOptions
from eval.attention_kinds.matchers import MatchersOptions
from eval.classification import ClassificationEvalOptions
from eval.stereo_kinds import StereoKindsOptions
from matcher.batch.options import CollectionOptions
from matcher.errors import UsageError
from matcher.options import MatchOptions
from matcher.tasks.stereo.__main__ import read_options as read_stereo_options
from matcher.training.config import RunConfig
from matcher.validation.checked import LARGEST, MOST_THREADS, config_from_dict
from matcher.validation.words import key_values, options_from_words
from matcher.web.__main__ import WebOptions
from train import train


def message(words: list[str], kind: type = MatchOptions) -> str:
    with pytest.raises(UsageError) as caught:
        options_from_words(kind, words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("word", ["=3", "=", "--=3", "-=3", " =3"])
def test_a_value_without_a_name_is_no_option(word: str) -> None:
    assert message([word]).endswith("is not an option; write key=value")
    assert message([word]).startswith(f"E204 {word.strip()}:")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--max_side", "640"], ["max_side=640"]),
        (["--max-side", "640"], ["max_side=640"]),
        (["--max-side=640", "top_k=5"], ["max_side=640", "top_k=5"]),
        (["--threshold", "-0.1"], ["threshold=-0.1"]),
        (["--output", "a b.h5", "--K", "[1,1,0,0]"], ["output=a b.h5", "K=[1,1,0,0]"]),
        (["--output=a=b.h5"], ["output=a=b.h5"]),
        (["--data.batch-size", "4"], ["data.batch_size=4"]),
        (["--offline", "top_k=5"], ["--offline", "top_k=5"]),
        (["--offline", "--top_k", "5"], ["--offline", "top_k=5"]),
        (["a.jpg", "--", "--x"], ["a.jpg", "--", "--x"]),
        ([], []),
    ],
)
def test_dashes_before_a_name_mean_the_same(words: list[str], meant: list[str]) -> None:
    assert key_values(words) == meant


def test_every_program_takes_dashes() -> None:
    read = options_from_words
    assert read(MatchOptions, ["--max-side", "640", "--offline"]) == MatchOptions(
        max_side=640, offline=True
    )
    assert read(CollectionOptions, ["--pairs", "list.txt"]) == CollectionOptions(pairs="list.txt")
    assert read(WebOptions, ["--port", "8000"]).port == 8000
    values = compose("train", ["--experiment", "smoke", "--seed", "7"])
    assert values == compose("train", ["experiment=smoke", "seed=7"])
    assert compose("train", ["--trainer.threads", "2"])["trainer"]["threads"] == 2
    dashed = ["--benchmark", "synthetic", "--method", "rootsift", "--limit", "3"]
    assert read_options(dashed) == read_options(["method=rootsift", "limit=3"])
    stereo = read_stereo_options(["left.png", "--output", "x.npz", "right.png"])
    assert (stereo.right, stereo.output) == ("right.png", "x.npz")
    assert plain_options(["--side", "9"], {"side": "1"}) == {"side": "9"}


@pytest.mark.parametrize(
    "name",
    ["a,b", "[x]", "{y}", "q'u", 'd"q', "c\\d", "new\nline", "ü", "=a=b", " a ", "1", "true", "~t"],
)
def test_what_is_text_is_taken_as_it_is_by_trainings_and_evaluations(name: str) -> None:
    values = compose("train", [f"name={name}", f"data.synthetic.photos={name}"])
    assert values["folder"] == f"runs/{name}"
    assert values["data"]["synthetic"]["photos"] == name
    (plan,) = read_options([f"root={name}", f"output={name}", f"xfeat={name}"])
    assert (plan.benchmark.root, plan.output, plan.xfeat) == (name, name, name)


def test_text_may_be_null_where_there_may_be_none() -> None:
    assert compose("train", ["data.synthetic.photos=null"])["data"]["synthetic"]["photos"] is None
    with pytest.raises(UsageError, match="E201 folder: got None; expected a name"):
        train(compose("train", ["folder=null"]))


@pytest.mark.parametrize(
    ("default", "kept", "refused"),
    [
        ("5", "12", ["x", "", "0", "1.5", "-1", "9" * 40, "3x4"]),
        ("0", "7", ["x", "", "-1", "1e3"]),
        ("600,2000", "9,10,11", ["9,", "a,b", ",", "9;10"]),
        ("480x640", "100x200,30x40", ["100", "100x", "0x4", "100x200x3"]),
    ],
)
def test_plain_options_keep_the_form_of_their_defaults(
    default: str, kept: str, refused: list[str]
) -> None:
    assert plain_options([f"some={kept}"], {"some": default}) == {"some": kept}
    for value in refused:
        with pytest.raises(UsageError, match=f"some: .*such as {default}"):
            plain_options([f"some={value}"], {"some": default})


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("resize=640", "max_side"), ("conf=0.3", "threshold"), ("--conf=0.3", "threshold"),
     ("image_size=640", "max_side"), ("max_keypoints=9", "top_k"), ("intrinsics=1", "K")],
)  # fmt: skip
def test_what_others_call_an_option_is_known(typed: str, meant: str) -> None:
    told = message([typed])
    assert told.startswith("E202 ")
    assert f"did you mean {meant!r}?" in told


def test_the_evaluation_knows_them_too() -> None:
    with pytest.raises(UsageError, match="did you mean 'threshold'"):
        read_options(["conf=0.3"])


def test_a_list_without_brackets_is_told_how_to_write_it() -> None:
    told = message(["K=520,520,319.5,239.5"])
    assert told.startswith("E201 K: got '520,520,319.5,239.5'; expected [fx,fy,cx,cy]")
    assert "'K=[520,520,319.5,239.5]'" in told
    assert "'hosts=[workstation]'" in message(["hosts=workstation"], WebOptions)


HUGE = ["9" * 20, "9" * 400, "9" * 5000, "1e400", str(LARGEST + 1), "0x10", "٣٣"]


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize("name", ["max_side", "top_k", "lines"])
def test_numbers_of_any_size_are_one_short_line(name: str, number: str) -> None:
    if number == "٣٣":
        assert getattr(options_from_words(MatchOptions, [f"{name}={number}"]), name) == 33
        return
    told = message([f"{name}={number}"])
    assert told.startswith(f"E201 {name}: got ")
    assert "below 2^31" in told
    assert len(told) < 500


@pytest.mark.parametrize("name", ["batch_size", "window", "cache_mb", "readers", "workers"])
def test_numbers_of_a_collection_are_limited_too(name: str) -> None:
    told = message(["pairs=x", f"{name}={'9' * 30}"], CollectionOptions)
    assert told.startswith(f"E201 {name}: ")


def test_threads_and_processes_are_limited_everywhere() -> None:
    many = MOST_THREADS + 1
    for name in ("threads", "readers", "workers"):
        assert "from 1 to 256" in message(["pairs=x", f"{name}={many}"], CollectionOptions)
    for name in ("threads", "workers"):
        with pytest.raises(UsageError, match="from 1 to 256"):
            read_options([f"{name}={many}"])
    for kind in (KindsOptions, MatchersOptions, StereoKindsOptions):
        assert "from 1 to 256" in message([f"threads={many}"], kind)
    for kind in (KindsOptions, ClassificationEvalOptions):
        given = ["folder=a", "weights=b"] if kind is ClassificationEvalOptions else []
        assert "from 0 to 256" in message([*given, f"workers={many}"], kind)
    values = compose("train", [f"trainer.threads={many}", f"data.workers={many}"])
    with pytest.raises(UsageError, match="threads: got 257; expected an integer from 0 to 256"):
        config_from_dict(RunConfig, {k: v for k, v in values.items() if k != "data"})


def test_names_that_are_no_utf8_are_told() -> None:
    told = message(["output=\udce4.csv"])
    assert "E201 output: got '\\udce4.csv'; expected UTF-8: rename it" in told


def test_a_long_value_or_name_is_cut_short() -> None:
    assert len(message([f"device={'x' * 100_000}"])) < 500
    assert len(message([f"{'x' * 100_000}=1"])) < 1000
    assert len(message(["x" * 100_000])) < 500


@pytest.mark.parametrize(
    ("typed", "value"), [("off", "off"), ("auto", "auto"), ("[1,3]", (1, 3)), ("[2]", (2,))]
)
def test_a_word_or_a_list_can_be_the_value_of_one_option(typed: str, value: object) -> None:
    assert options_from_words(MatchOptions, [f"rotate={typed}"]).rotate == value
    assert "E201 rotate: got '1,3'; expected auto, off or a list" in message(["rotate=1,3"])
