"""The converter and the model against matchers run with the authors' code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from matcher.network.model import FeatureMatcher
from matcher.weights.checkpoint import load_safetensors
from matcher.weights.convert import config_from_official, convert

GOLDEN = Path(__file__).parents[1] / "golden"
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module", params=["a", "b"])
def golden(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FeatureMatcher, Arrays]:
    stem = f"loftr_quadtree_{request.param}_small"
    expected = dict(np.load(GOLDEN / f"{stem}.npz"))
    official = json.loads((GOLDEN / f"{stem}.json").read_text())
    target = tmp_path_factory.mktemp("golden") / f"{stem}.safetensors"
    convert(GOLDEN / f"{stem}.ckpt", target, config_from_official(official))
    options = {
        "coarse.threshold": float(expected["threshold"]),
        "coarse.temperature": float(expected["temperature"]),
        "transformer.topks": tuple(expected["topks"].tolist()),
    }
    return load_safetensors(target, overrides=options), expected


def image(expected: Arrays, name: str) -> torch.Tensor:
    return torch.from_numpy(expected[name])[None, None].float() / 255


def pairs_of(cells0: torch.Tensor, cells1: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in torch.cat([cells0, cells1], dim=1).int().tolist()]


@torch.no_grad()
def test_features_are_the_published_ones(golden: tuple[FeatureMatcher, Arrays]) -> None:
    model, expected = golden
    features = [model.extract(image(expected, f"image{i}")) for i in range(2)]
    backbone = torch.from_numpy(expected["backbone_coarse"])
    assert (torch.cat([f.coarse for f in features]) - backbone).abs().max() <= 1e-4
    output = model.match(*features)
    for i, coarse in enumerate((output.coarse0, output.coarse1)):
        tokens = coarse[0].flatten(1).T
        assert (tokens - torch.from_numpy(expected[f"coarse{i}"])).abs().max() <= 1e-4


@torch.no_grad()
def test_matches_are_the_published_ones(golden: tuple[FeatureMatcher, Arrays]) -> None:
    model, expected = golden
    output = model(image(expected, "image0"), image(expected, "image1"))
    columns = expected["image1"].shape[1] // 8
    columns = expected["image1"].shape[1] // 8
    index1 = output.coarse.index1
    cells1 = torch.stack([index1 % columns, index1 // columns], dim=1) * 8
    found = pairs_of(output.keypoints0, cells1)
    published = pairs_of(*(torch.from_numpy(expected[f"mkpts{i}_c"]) for i in range(2)))
    assert len(published) > 200
    assert set(found) == set(published)
    order = [found.index(pair) for pair in published]
    for keypoints, name in ((output.keypoints0, "mkpts0_f"), (output.keypoints1, "mkpts1_f")):
        assert np.abs(keypoints.numpy()[order] - expected[name]).max() <= 1e-2
    assert np.abs(output.score.numpy()[order] - expected["mconf"]).max() <= 1e-3
