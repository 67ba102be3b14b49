"""The key of a run holds all that decides its results, and the weights stay what they were."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import match
from matcher.batch import worker
from matcher.batch.options import CollectionOptions
from matcher.batch.worker import fingerprints_of
from matcher.network.quality import QualityHead
from matcher.weights.checkpoint import quality_path, save_quality
from matcher.weights.hub import BUNDLED
from tests.helpers.collections_of_pairs import Outcome

Program = Callable[..., Outcome]


@pytest.fixture
def own(program: Program, weights: str, tmp_path: Path) -> Path:
    """Weights that a test may replace, beside the images of `program`."""
    return Path(shutil.copy(weights, tmp_path / "best.safetensors"))


def refusal(weights: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a collection with these weights is refused with."""
    assert match.main(["pairs=img", "output=run", f"weights={weights}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("E206 ")
    return error


def test_every_option_is_in_the_key_or_changes_no_match_of_a_pair() -> None:
    told_by_contents = {"pairs", "weights", "masks"}
    which_pairs = {"against", "select", "window", "model", "root", "extend"}
    which_images = {"allow_outside_root", "skip_missing", "retry", "offline"}
    how_fast = {"threads", "cache_mb", "readers", "engine", "workers", "device", "lock", "output"}
    of_exports = {"export", "merge", "converged_only", "refine_tracks", "K", "cameras"}
    others = told_by_contents | which_pairs | which_images | how_fast | of_exports
    in_key = {*CollectionOptions(pairs="list").settings, "shard_size"}
    assert {field.name for field in fields(CollectionOptions)} == in_key | others
    assert not in_key & others


def test_bundled_weights_are_run_alike_by_name_and_by_path() -> None:
    named = fingerprints_of(BUNDLED["compact"])
    assert named["run_as_bundled"]
    assert named == fingerprints_of(Path(os.path.relpath(BUNDLED["compact"])))


def test_another_arithmetic_is_another_run(program: Program) -> None:
    assert program("pairs=img", "output=run")[0] == 0
    code, _, err = program("pairs=img", "output=run", "dtype=bfloat16")
    assert code == 2
    assert "E206" in err
    assert "dtype was 'auto' and is 'bfloat16'" in err


def test_a_quality_head_that_came_later_is_another_run(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert match.main(["pairs=img", "output=run", f"weights={own}"]) == 0
    save_quality(QualityHead(), quality_path(own), own)
    capsys.readouterr()
    assert "quality_sha256 was ''" in refusal(own, capsys)


def test_weights_that_are_replaced_while_images_are_hashed_are_refused(
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    load = worker.load_matcher

    def after_a_training_step(*values: Any) -> Any:
        own.write_bytes(own.read_bytes() + b"\0")
        return load(values[0].with_name("kept.safetensors"), *values[1:])

    shutil.copy(own, tmp_path / "kept.safetensors")
    monkeypatch.setattr(worker, "load_matcher", after_a_training_step)
    assert "best.safetensors: was replaced while the collection ran" in refusal(own, capsys)
    assert not list((tmp_path / "run" / "shards").iterdir())
