"""A small random model, and match.py with it in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import match
from matcher.network.model import build_matcher
from matcher.weights.checkpoint import save_safetensors
from tests.helpers.collections_of_pairs import Outcome, write_images
from tests.helpers.models import PUBLISHED_TINY


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    coarse = replace(PUBLISHED_TINY.coarse, threshold=0.0)
    save_safetensors(build_matcher(replace(PUBLISHED_TINY, coarse=coarse)), path)
    return str(path)


@pytest.fixture
def program(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., Outcome]:
    """match.py in this process, in a folder with five images in ``img``."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "img")

    def run(*words: str) -> Outcome:
        chosen = [f"weights={weights}"] if words[0].startswith("pairs=") else []
        code = match.main([*words, *chosen])
        out, err = capsys.readouterr()
        return code, out, err

    return run
