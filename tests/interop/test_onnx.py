"""A matcher as an ONNX file: any sizes, masks and the same matches as in PyTorch."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from benchmarks.onnx import SIZES, share_in_common
from matcher import Matches, build_matcher, load_matcher
from matcher.attention.quadtree import attend
from matcher.attention.reference import Variant
from matcher.errors import CheckpointError, UsageError
from matcher.interop.graph import INPUTS, OUTPUTS, MatchingGraph, least_side
from matcher.interop.onnx import OPSET, OnnxPredictor, Runtime
from matcher.interop.onnx_quadtree import quadtree
from matcher.weights.checkpoint import save_safetensors
from tests.helpers.models import COMPACT_TINY, PUBLISHED_TINY, noise, tiny_model

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = get_args(Runtime)
PLAIN = {"refine": "none", "dtype": "float32", "device": "cpu"}


def exported(folder: Path, weights: Path | str, top_k: int) -> Path:
    """The file that the command writes, in a process of its own: pytest would keep every line that
    torch logs while it traces."""
    path = folder / "matcher.onnx"
    command = ["export", "onnx", f"output={path}", f"weights={weights}", f"top_k={top_k}"]
    subprocess.run([sys.executable, "-m", "quadmatch", *command], check=True, cwd=ROOT)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny matcher."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_safetensors(tiny_model(), path, half=False)
    return path


@pytest.fixture(scope="module")
def file(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny matcher as an ONNX file."""
    return exported(tmp_path_factory.mktemp("onnx"), weights, 400)


@pytest.mark.parametrize("variant", ["A", "B"])
def test_the_attention_in_onnx_is_that_of_pytorch(variant: Variant) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, 8, *size, generator=generator) for size in ((8, 12), (16, 8), (16, 8))
    )
    query_mask, key_mask = torch.ones(1, 8, 12).bool(), torch.ones(1, 16, 8).bool()
    query_mask[:, :, 5:] = key_mask[:, :, 5:] = False
    weights = torch.randn(3, generator=generator) if variant == "B" else None
    maps = (query, key, value, query_mask, key_mask)
    expected = attend(*maps, weights, (4, 4, 4), 2, variant)
    given = [None if each is None else each.numpy() for each in (*maps, weights)]
    found = torch.from_numpy(np.asarray(quadtree(*given, (4, 4, 4), 2, variant).value))
    assert expected.abs().max() > 0.1
    assert (found - expected)[..., :5].abs().max() < 1e-5


def test_a_query_that_may_see_nothing_gets_nothing_in_onnx() -> None:
    maps = [np.random.default_rng(0).random((1, 8, 8, 8), np.float32) for _ in range(3)]
    masks = np.ones((1, 8, 8), bool), np.zeros((1, 8, 8), bool)
    found = quadtree(*maps, *masks, np.zeros(3, np.float32), (4, 4, 4), 2, "B")
    assert np.abs(np.asarray(found.value)).max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("size0", "size1"), [((96, 128), (96, 128)), ((70, 101), (130, 64)), ((40, 33), (64, 64))]
)
def test_one_file_matches_images_of_any_sizes(
    size0: tuple[int, int], size1: tuple[int, int], runtime: Runtime, file: Path, weights: Path
) -> None:
    large = noise(160, 160)
    image0, image1 = large[: size0[0], : size0[1]], large[16:, 8:][: size1[0], : size1[1]]
    expected = load_matcher(weights, **PLAIN).match(image0, image1)
    found = OnnxPredictor(file, runtime=runtime, **PLAIN).match(image0, image1)
    assert len(expected) > 10
    assert share_in_common(expected, found) > 0.98
    assert (expected.scores.sum() - found.scores.sum()).abs() < 1e-2


@pytest.mark.slow
def test_masked_regions_take_no_match_and_have_no_influence(file: Path, weights: Path) -> None:
    image0, image1 = noise(96, 128), np.roll(noise(96, 128), 16, 1)
    mask = np.ones((96, 128), bool)
    mask[:, 64:] = False
    expected = load_matcher(weights, **PLAIN).match(image0, image1, mask0=mask)
    found = OnnxPredictor(file, **PLAIN).match(image0, image1, mask0=mask)
    assert len(found) > 5
    assert (found.keypoints0[:, 0] < 64).all()
    assert share_in_common(expected, found) > 0.98


@pytest.mark.slow
def test_the_file_says_what_it_is(file: Path) -> None:
    model = onnx.load(file)
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == OPSET >= 23
    assert [value.name for value in model.graph.input] == list(INPUTS)
    assert [value.name for value in model.graph.output] == list(OUTPUTS)
    assert OnnxPredictor(file).config == COMPACT_TINY


@pytest.mark.slow
def test_the_lines_of_the_documentation_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/onnx.md").read_text("utf-8"), re.DOTALL)
    for name, image in (("a", noise(96, 128)), ("b", noise(64, 96))):
        Image.fromarray((image * 255).astype(np.uint8)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "matcher.onnx").symlink_to(file)
    (tmp_path / "lines.py").write_text("\n".join(code))
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path("lines.py")
    assert names["keypoints0"].shape == (400, 2)
    assert len(names["matches"]) > 0


@pytest.mark.parametrize(
    ("content", "error", "code"),
    [
        (None, UsageError, "E111"),
        (b"\x01nothing", CheckpointError, "E501"),
        (onnx.ModelProto().SerializeToString(), CheckpointError, "E508"),
    ],
)
def test_files_that_hold_no_matcher_are_refused(
    content: bytes | None, error: type[Exception], code: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=code):
        OnnxPredictor(path)


def test_the_graph_in_pytorch_gives_the_matches_of_the_matcher() -> None:
    model = tiny_model().eval()
    image0, image1 = (
        torch.from_numpy(noise(64, 96))[None, None],
        torch.from_numpy(noise(96, 96))[None, None],
    )
    masks = [torch.ones_like(image[0], dtype=torch.bool) for image in (image0, image1)]
    with torch.no_grad():
        graph = Matches(*MatchingGraph(model, 96)(image0, image1, *masks)).above(0.0)
        (expected,) = model(image0, image1).split(1)
    assert len(graph) == len(expected) > 5
    assert share_in_common(expected, graph) == 1.0


def test_the_least_side_has_enough_cells_for_the_attention() -> None:
    assert least_side(PUBLISHED_TINY) == 33
    assert least_side(load_matcher("compact").model.config) == 129


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["A", "B"])
def test_published_layers_match_as_in_pytorch(variant: Variant, tmp_path: Path) -> None:
    transformer = replace(PUBLISHED_TINY.transformer, variant=variant)
    torch.manual_seed(0)
    model = build_matcher(replace(PUBLISHED_TINY, transformer=transformer))
    save_safetensors(model, tmp_path / "tiny.safetensors", half=False)
    path = exported(tmp_path, tmp_path / "tiny.safetensors", 400)
    image0, image1 = noise(96, 128), np.roll(noise(96, 128), 16, 1)
    expected = load_matcher(tmp_path / "tiny.safetensors", **PLAIN).match(image0, image1)
    assert len(expected) > 10
    for runtime in RUNTIMES:
        found = OnnxPredictor(path, runtime=runtime, **PLAIN).match(image0, image1)
        assert share_in_common(expected, found) > 0.98


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled matcher, by the command."""
    return exported(tmp_path_factory.mktemp("bundled"), "compact", 8192)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("size", SIZES)
def test_the_bundled_matcher_finds_the_same_matches(
    size: tuple[int, int], runtime: Runtime, bundled: Path
) -> None:
    images = [
        Image.open(ROOT / "assets" / f"demo{i}.jpg").convert("L").resize(size) for i in (0, 1)
    ]
    exact = load_matcher("compact", coarsest_cells=0, routing="exact", **PLAIN)
    expected = exact.match(*images)
    found = OnnxPredictor(bundled, runtime=runtime, **PLAIN).match(*images)
    assert len(expected) > 200
    assert share_in_common(expected, found) >= 0.99
