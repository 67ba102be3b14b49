"""Settings of the process belong to its user: none changes a match, and no match changes them."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from matcher import Matches, Predictor, load_matcher
from matcher.drawing.attention_trace import trace_attention
from matcher.errors import ImageError, UsageError
from matcher.images.load import load_image
from matcher.weights.checkpoint import save_safetensors
from tests.helpers.models import noise, tiny_model

IMAGE0, IMAGE1 = noise(64, 96), noise(64, 96, 1)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(tiny_model(), device="cpu")


@pytest.fixture(scope="module")
def usual(predictor: Predictor) -> Matches:
    found = predictor.match(IMAGE0, IMAGE1)
    assert len(found) > 10
    return found


@pytest.fixture
def default_dtype(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


def require_equal(found: Matches, usual: Matches) -> None:
    for name in ("keypoints0", "keypoints1", "scores"):
        values = getattr(found, name)
        assert values.dtype == torch.float32
        assert values.device.type == "cpu"
        assert not values.is_inference()
        assert torch.equal(values, getattr(usual, name))


@pytest.mark.parametrize(
    "default_dtype", [torch.float64, torch.float16, torch.bfloat16], indirect=True
)
@pytest.mark.usefixtures("default_dtype")
def test_another_default_dtype_changes_no_match(predictor: Predictor, usual: Matches) -> None:
    require_equal(predictor.match(IMAGE0, IMAGE1), usual)
    assert Matches.empty().keypoints0.dtype == torch.float32


def test_another_default_device_changes_no_match(
    predictor: Predictor, usual: Matches, tmp_path: object
) -> None:
    path = f"{tmp_path}/tiny.safetensors"
    save_safetensors(tiny_model(), path, half=False)
    with torch.device("meta"):
        loaded = load_matcher(path, device="cpu")
        require_equal(loaded.match(IMAGE0, IMAGE1), load_matcher(path).match(IMAGE0, IMAGE1))
        require_equal(predictor.match(IMAGE0, IMAGE1), usual)
        require_equal(next(predictor.match_many([(IMAGE0, IMAGE1)])), usual)
        assert Matches.empty().scores.device.type == "cpu"
        assert torch.zeros(1).device.type == "meta"


@pytest.mark.parametrize(
    "mode",
    [
        torch.inference_mode(),
        torch.no_grad(),
        torch.enable_grad(),
        torch.autocast("cpu", dtype=torch.bfloat16),
        np.errstate(all="raise"),
    ],
    ids=["inference", "no_grad", "grad", "autocast", "numpy_errors"],
)
def test_modes_around_the_call_change_no_match(
    mode: object, predictor: Predictor, usual: Matches, tmp_path: object
) -> None:
    path = f"{tmp_path}/tiny.safetensors"
    save_safetensors(tiny_model(), path, half=False)
    outside = load_matcher(path, device="cpu").match(IMAGE0, IMAGE1)
    with mode:  # pyright: ignore[reportGeneralTypeIssues]
        require_equal(predictor.match(IMAGE0, IMAGE1), usual)
        require_equal(load_matcher(path, device="cpu").match(IMAGE0, IMAGE1), outside)


def test_warnings_as_errors_stop_nothing(predictor: Predictor, usual: Matches) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_equal(predictor.match(IMAGE0, IMAGE1), usual)


def test_a_cut_picture_is_refused_whatever_pillow_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = BytesIO()
    Image.fromarray((IMAGE0 * 255).astype(np.uint8)).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:-1500])
    (tmp_path / "whole.jpg").write_bytes(whole.getvalue())
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with ThreadPoolExecutor(4) as pool:
        cut = [pool.submit(load_image, tmp_path / "cut.jpg") for _ in range(20)]
        others = [pool.submit(load_image, tmp_path / "whole.jpg") for _ in range(20)]
    assert all(isinstance(each.exception(), ImageError) for each in cut)
    assert not any(each.exception() for each in others)
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    allowed = load_image(tmp_path / "cut.jpg", allow_truncated=True)
    assert allowed.warnings == ("cut off; the missing part is gray",)


def test_matching_leaves_generators_and_modes_alone(predictor: Predictor) -> None:
    def state() -> tuple:
        generators = (torch.get_rng_state().tolist(), random.getstate())
        modes = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads())
        return *generators, np.random.get_state()[1].tolist(), *modes

    before = state()
    predictor.match(IMAGE0, IMAGE1)
    assert state() == before


def test_a_loss_of_matches_has_gradients_and_they_can_be_changed(predictor: Predictor) -> None:
    found = predictor.match(IMAGE0, IMAGE1)
    turn = torch.eye(2, requires_grad=True)
    loss = (found.keypoints0 @ turn - found.keypoints1).square() * found.scores[:, None]
    loss.mean().backward()
    assert turn.grad is not None
    assert turn.grad.abs().sum() > 0
    first = float(found.keypoints0[0, 0])
    found.keypoints0.add_(0.5)
    assert float(found.keypoints0[0, 0]) == first + 0.5
    assert not found.scores.requires_grad


def test_matches_that_carry_gradients_become_arrays() -> None:
    points = torch.ones(3, 2, requires_grad=True)
    assert Matches(points * 2, points, torch.ones(3)).numpy()[0].tolist() == [[2, 2]] * 3


def test_matches_can_be_looked_for_in_lists_and_sets(predictor: Predictor, usual: Matches) -> None:
    other = predictor.match(noise(64, 96), noise(64, 96))
    assert usual in [other, usual]
    assert usual not in {other}


def test_traces_of_attention_are_ordinary_tensors_too(predictor: Predictor) -> None:
    trace = trace_attention(predictor, IMAGE0, IMAGE1)
    assert not trace.coarse0.is_inference()


GRAY = torch.from_numpy(IMAGE0)
KINDS = {
    "gradients": GRAY.clone().requires_grad_(),
    "float64": GRAY.double(),
    "transposed memory": GRAY.t().contiguous().t(),
    "sparse": GRAY.to_sparse(),
    "rows": GRAY.to_sparse_csr(),
    "imaginary part": torch.complex(GRAY, -GRAY).conj().imag,
    "stretched": GRAY[None].expand(3, -1, -1),
    "negative strides": np.ascontiguousarray(IMAGE0[::-1, ::-1])[::-1, ::-1],
    "columns": np.asfortranarray(IMAGE0),
    "long double": IMAGE0.astype(np.longdouble),
    "other bytes": IMAGE0.astype(IMAGE0.dtype.newbyteorder("S")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_may_be_any_kind_of_tensor(
    kind: str, predictor: Predictor, usual: Matches
) -> None:
    found = predictor.match(KINDS[kind], IMAGE1)
    assert len(found) == len(usual)
    assert (found.keypoints1 - usual.keypoints1).abs().max() < 0.02


def test_a_quantized_image_is_what_its_values_are(predictor: Predictor) -> None:
    steps = torch.from_numpy((IMAGE0 * 255).round().astype(np.uint8))
    values = torch.quantize_per_tensor(steps / 255, 1 / 255, 0, torch.quint8)
    found, expected = predictor.match(values, IMAGE1), predictor.match(steps, IMAGE1)
    assert len(found) == len(expected)


REFUSED = {
    "meta": GRAY.to("meta"),
    "nested": torch.nested.nested_tensor([GRAY, GRAY]),
    "complex": GRAY.to(torch.complex64),
    "int64": GRAY.long(),
    "masked array": np.ma.masked_array(IMAGE0, IMAGE0 > 0.5),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_image_without_usable_values_is_one_error(kind: str, predictor: Predictor) -> None:
    with pytest.raises(ImageError, match=r"^E105 image1: cannot use") as caught:
        predictor.match(IMAGE0, REFUSED[kind])
    assert "\n" not in str(caught.value)


ALLOWED = np.ones(IMAGE0.shape, bool)
ALLOWED[:, :48] = False
WHERE = torch.from_numpy(ALLOWED)
MASKS = {
    "uint8": ALLOWED.astype(np.uint8) * 255,
    "bfloat16": WHERE.bfloat16(),
    "float8": WHERE.to(torch.float8_e4m3fn),
    "int64": WHERE.long(),
    "gradients": WHERE.float().requires_grad_(),
    "sparse": WHERE.float().to_sparse(),
    "quantized": torch.quantize_per_tensor(WHERE.float(), 1 / 255, 0, torch.quint8),
    "(1, H, W)": WHERE[None],
    "(H, W, 1)": ALLOWED[..., None],
    "(1, 1, H, W)": WHERE[None, None],
    "negative strides": np.ascontiguousarray(ALLOWED[::-1])[::-1],
    "NaN": np.where(ALLOWED, 1, np.nan),
    "masked array": np.ma.masked_array(np.ones(ALLOWED.shape), ~ALLOWED),
    "picture of 1 bit": Image.fromarray(ALLOWED),
    "gray picture": Image.fromarray(ALLOWED.astype(np.uint8) * 255),
    "picture of palette": Image.fromarray(ALLOWED.astype(np.uint8) * 255).convert("P"),
    "picture of floats": Image.fromarray(ALLOWED.astype(np.float32)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_may_be_any_kind_of_array_tensor_or_picture(kind: str, predictor: Predictor) -> None:
    usual = predictor.match(IMAGE0, IMAGE1, mask0=ALLOWED)
    assert usual.keypoints0[:, 0].min() > 40
    require_equal(predictor.match(IMAGE0, IMAGE1, mask0=MASKS[kind]), usual)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (WHERE.to("meta"), "E105 mask0: cannot use this tensor"),
        (WHERE.to(torch.complex64), "E201 mask0: got 'torch.complex64'"),
        (np.full(ALLOWED.shape, "yes"), "E201 mask0: got '<U3'"),
        (ALLOWED.tolist(), "E201 mask0: got 'list'"),
        (np.stack([ALLOWED] * 3, axis=-1), r"E201 mask0: got \(64, 96, 3\)"),
    ],
)
def test_a_mask_that_is_none_is_one_error(mask: object, message: str, predictor: Predictor) -> None:
    with pytest.raises((UsageError, ImageError), match=message):
        predictor.match(IMAGE0, IMAGE1, mask0=mask)  # pyright: ignore[reportArgumentType]


def test_pycolmap_leaves_the_answer_to_sigterm_with_the_program() -> None:
    code = """import os, signal, sys
from matcher.errors import require_extra
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
require_extra("pycolmap", "sfm", "export")
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7, "")
