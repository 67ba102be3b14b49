"""The predictor: any two images in, matches in their original pixels out, every time the same."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from matcher import Matches, Predictor, build_matcher, judge, load_matcher, runtime
from matcher.errors import ImageError, MemoryLimitError, UsageError
from matcher.geometry.pixels import Window, upright_to_stored
from matcher.images.load import load_image
from matcher.images.preprocess import prepare
from matcher.weights.hub import BUNDLED
from tests.helpers.models import COMPACT_TINY, PUBLISHED_TINY, noise, tiny_model

ROOT = Path(__file__).resolve().parents[1]
DEMO = [str(ROOT / "assets" / name) for name in ("demo0.jpg", "demo1.jpg")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(tiny_model(), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def compact() -> Predictor:
    return load_matcher("compact", device="cpu", offline=True, dtype="float32")


def by_position(matches: Matches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays in an order that does not depend on scores."""
    keypoints0, keypoints1, scores = matches.numpy()
    order = np.lexsort(keypoints0.T)
    return keypoints0[order], keypoints1[order], scores[order]


def require_sound(matches: Matches, size0: tuple[int, int], size1: tuple[int, int]) -> None:
    """Inside both images, one to one on the cells of image 0, finite, best first."""
    for keypoints, size in ((matches.keypoints0, size0), (matches.keypoints1, size1)):
        assert keypoints.dtype == torch.float32
        assert ((keypoints >= 0) & (keypoints < torch.tensor(size))).all()
    assert torch.isfinite(matches.scores).all()
    assert ((matches.scores >= 0) & (matches.scores <= 1)).all()
    assert (matches.rank.diff() <= 0).all()
    assert len(matches.keypoints0.unique(dim=0)) == len(matches)


def require_same(found: Matches, expected: Matches) -> None:
    assert len(found) == len(expected)
    limits = (1e-3, 1e-3, 1e-5)
    for a, b, limit in zip(by_position(found), by_position(expected), limits, strict=True):
        assert np.abs(a - b).max(initial=0) <= limit


def test_random_sizes_match_inside_both_images() -> None:
    model = tiny_model()
    small = Predictor(model, device="cpu", max_side=120)
    whole = Predictor(model, device="cpu", max_side=None)
    rng = np.random.default_rng(9)
    total = 0
    for i in range(60):
        limit = 700 if i % 6 else 200
        height0, width0, height1, width1 = rng.integers(1, limit + 1, 4)
        images = noise(height0, width0, i), noise(height1, width1, i + 1)
        matches = (small if i % 6 else whole).match(*images)
        require_sound(matches, (width0, height0), (width1, height1))
        too_small = min(height0, width0, height1, width1) < 32
        assert matches.reason == ("too_small" if too_small else "")
        assert not (too_small and len(matches))
        total += len(matches)
    assert total > 200


def test_extreme_aspects_match_inside_both_images(predictor: Predictor) -> None:
    matches = predictor.match(noise(33, 800), noise(800, 40))
    require_sound(matches, (800, 33), (40, 800))
    assert len(matches) > 10


def test_identical_images_match_where_they_are_at_any_scale(predictor: Predictor) -> None:
    image = noise(333, 217)
    matches = predictor.match(image, image)
    assert len(matches) > 500
    assert (matches.keypoints0 - matches.keypoints1).abs().max() < 0.5
    half = Predictor(predictor.model, device="cpu", max_side=101)
    shrunk = half.match(image, image)
    # Cells are 8 network pixels apart: 8 x 333 / 101 original pixels.
    assert np.allclose(np.diff(np.unique(shrunk.keypoints0[:, 1])), 8 * 333 / 101, atol=1e-3)
    assert shrunk.keypoints0[:, 1].min() == pytest.approx(0.5 * 333 / 101 - 0.5, abs=1e-4)


def test_small_images_are_never_enlarged(predictor: Predictor) -> None:
    each = prepare(load_image(DEMO[0]), None, COMPACT_TINY, None)
    assert each.scale.tolist() == [1, 1]
    limited = prepare(load_image(DEMO[0]), None, COMPACT_TINY, 100_000)
    assert torch.equal(limited.canvas, each.canvas)
    small = prepare(load_image(DEMO[0]), None, COMPACT_TINY, 64)
    assert small.canvas.shape[1:] == (64, 64)
    assert max(each.image.size) / 64 == pytest.approx(float(small.scale.max()))


def test_cells_are_valid_where_their_center_is_inside() -> None:
    image = load_image(DEMO[0])
    gray = image.gray[:41, :57]
    each = prepare(type(image)(gray, (57, 41)), None, COMPACT_TINY, None)
    assert each.canvas.shape == (1, 64, 64)
    assert each.valid.sum(dim=0).tolist() == [6] * 8
    assert each.valid.sum(dim=1).tolist() == [8] * 6 + [0, 0]
    narrow = prepare(type(image)(gray[:, :56], (56, 41)), None, COMPACT_TINY, None)
    assert narrow.valid.any(dim=0).tolist() == [True] * 7 + [False]
    assert (each.canvas[0, 40:, :57] == torch.from_numpy(gray[40])).all()


def test_batches_of_any_sizes_give_what_each_pair_gives_alone(predictor: Predictor) -> None:
    rng = np.random.default_rng(3)
    pairs, cases = [], 50
    for i in range(cases):
        sizes = rng.integers(32, 180, 4)
        pairs.append((noise(sizes[0], sizes[1], i), noise(sizes[2], sizes[3], 1000 + i)))
    alone = [predictor.match(*pair) for pair in pairs]
    assert sum(len(matches) for matches in alone) > 500
    found = []
    for start, count in ((0, 2), (2, 8), (10, 8), (18, 16), (34, 16)):
        batch = pairs[start : start + count]
        found += predictor.match_many(batch, batch_size={2: 2, 8: 4, 16: 8}[count])
    for one, together in zip(alone, found, strict=True):
        require_same(together, one)
    order = rng.permutation(8)
    for i, matches in zip(
        order, predictor.match_many([pairs[i] for i in order], batch_size=8), strict=True
    ):
        require_same(matches, alone[i])


def test_padding_that_is_masked_is_not_felt(predictor: Predictor) -> None:
    image0, image1 = noise(75, 101), noise(88, 90, 1)
    beyond = ((0, 21), (0, 27))
    padded0, mask0 = np.pad(image0, beyond, "edge"), np.pad(np.ones((75, 101), bool), beyond)
    require_same(predictor.match(padded0, image1, mask0=mask0), predictor.match(image0, image1))


def test_region_masks_hold_in_original_pixels(predictor: Predictor, tmp_path: Path) -> None:
    image = noise(300, 200)
    mask = np.zeros((300, 200), bool)
    mask[100:260, 30:150] = True
    small = Predictor(predictor.model, device="cpu", max_side=150)
    matches = small.match(image, image, mask0=mask)
    assert len(matches) > 20
    x, y = matches.keypoints0.round().long().unbind(1)
    assert mask[y, x].all()
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    from_file = small.match(image, image, mask0=tmp_path / "mask.png")
    from_tensor = small.match(image, image, mask0=torch.from_numpy(mask))
    for other in (from_file, from_tensor):
        assert torch.equal(other.keypoints0, matches.keypoints0)
    nothing = small.match(image, image, mask1=np.zeros((300, 200), bool))
    assert (len(nothing), nothing.reason) == (0, "masked")
    with pytest.raises(UsageError, match=r"E201 mask0: got 'list'; expected a path"):
        small.match(image, image, mask0=[[1]])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match=r"E201 mask1: got \(200, 300\); expected .*\(300, 200\)"):
        small.match(image, image, mask1=mask.T)


def test_exif_results_are_in_stored_pixels(predictor: Predictor, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    gray = (noise(96, 128) * 255).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(gray, -1)
    turning, plain = (
        Predictor(predictor.model, device="cpu", apply_exif=wanted) for wanted in (True, False)
    )
    assert predictor.options.apply_exif
    mask = np.zeros((96, 128), bool)
    mask[:, 64:] = True
    matches = turning.match(tmp_path / "turned.png", upright, mask0=mask)
    require_sound(matches, (128, 96), (96, 128))
    assert len(matches) > 40
    there = upright_to_stored(matches.keypoints1, 6, (128, 96))
    assert (there - matches.keypoints0).norm(dim=1).median() < 0.5
    assert matches.keypoints0[:, 0].min() >= 64
    stored = plain.match(tmp_path / "turned.png", gray)
    assert (stored.keypoints0 - stored.keypoints1).norm(dim=1).median() < 0.5


def test_images_come_as_paths_arrays_tensors_or_loaded(predictor: Predictor) -> None:
    other = noise(64, 64)
    image = load_image(DEMO[0])
    expected = predictor.match(DEMO[0], other)
    picture = Image.fromarray(image.gray)
    for source in (Path(DEMO[0]), image, image.gray, torch.from_numpy(image.gray)[None], picture):
        assert torch.equal(predictor.match(source, other).keypoints1, expected.keypoints1)


def test_threshold_and_top_k_hold_for_one_call() -> None:
    model = tiny_model()
    image0, image1 = noise(128, 128), noise(128, 128, 1)
    everything = Predictor(model, device="cpu").match(image0, image1)
    middle = float(everything.scores.median())
    strict = Predictor(model, device="cpu", threshold=middle, top_k=7)
    few = strict.match(image0, image1)
    assert torch.equal(few.scores, everything.scores[:7])
    above = strict.match(image0, image1, top_k=10_000)
    assert len(above) == int((everything.scores > middle).sum())
    again = strict.match(image0, image1, threshold=0.0, top_k=10_000)
    assert torch.equal(again.keypoints1, everything.keypoints1)
    assert len(strict.match(image0, image1, threshold=1.0)) == 0


def test_matches_are_selected_and_shown_in_brief() -> None:
    points = torch.arange(10.0).view(5, 2)
    matches = Matches(points, points + 1, torch.tensor([0.9, 0.8, 0.3, 0.2, 0.1]))
    assert repr(matches) == "Matches(5, scores 0.100 to 0.900)"
    assert repr(Matches.empty("masked")) == "Matches(0, reason='masked')"
    last = torch.tensor([[8.0, 9.0]])
    for index in (-1, np.int64(4), [4], slice(4, None), np.arange(5) == 4, matches.scores < 0.15):
        assert torch.equal(matches[index].keypoints0, last)
    assert [float(each.scores) for each in matches] == matches.scores.tolist()
    with pytest.raises(IndexError):
        _ = matches[5]


def test_matches_are_selected_by_whatever_numpy_and_opencv_give() -> None:
    points = torch.arange(10.0).view(5, 2)
    matches = Matches(points, points + 1, torch.tensor([0.1, 0.2, 0.3, 0.8, 0.9]))
    fixed = np.array([4, 3])
    fixed.flags.writeable = False
    mask = np.array([0, 0, 0, 1, 1])
    for index in (
        np.argsort(matches.scores.numpy())[::-1][:2],
        slice(None, 2, -1),
        fixed,
        fixed.astype(">i2"),
        torch.tensor([4, 3], dtype=torch.int16),
        np.argwhere(mask)[::-1],
        range(4, 2, -1),
    ):
        assert matches[index].scores.tolist() == matches.scores[[4, 3]].tolist()
    for index in (mask.astype(bool), mask.astype(np.uint8), mask.astype(np.uint8)[:, None]):
        assert matches[index].scores.tolist() == matches.scores[3:].tolist()
    assert len(matches[torch.tensor(4)]) == len(matches[np.array(4)]) == 1
    assert len(matches[[]]) == len(matches[np.array([])]) == 0
    for index in (np.array([0.0, 1.0]), torch.tensor([0.5]), np.argwhere(np.eye(2)), mask[:3] > 0):
        with pytest.raises(IndexError):
            _ = matches[index]


def test_matches_of_anything_but_tensors_are_refused() -> None:
    points = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="keypoints0 of type ndarray"):
        Matches(points, points, points[:, 0])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="quality of type list"):
        Matches(*map(torch.from_numpy, (points, points, points[:, 0])), quality=[1, 1, 1])  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"top_k": 0}, "top_k"),
        ({"max_side": -3}, "max_side"),
        ({"max_side": 99.5}, "max_side"),
        ({"device": "abacus"}, "device"),
        ({"device": "cuda:77"}, "device"),
        ({"dtype": torch.int8}, "dtype"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict, name: str) -> None:
    with pytest.raises(UsageError, match=f"E201 {name}: "):
        Predictor(tiny_model(), **options)


def test_options_of_one_call_are_checked_at_once(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="threshold"):
        predictor.match("none.png", "none.png", threshold=-1.0)
    with pytest.raises(UsageError, match="batch_size"):
        predictor.match_many([], batch_size=0)
    assert list(predictor.match_many([])) == []


def test_files_that_cannot_be_used_raise_and_small_ones_do_not(
    predictor: Predictor, tmp_path: Path
) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<html></html>")
    with pytest.raises(UsageError, match="E111"):
        predictor.match(tmp_path / "none.jpg", DEMO[0])
    with pytest.raises(ImageError, match=r"E101 .*page\.jpg"):
        predictor.match(DEMO[0], tmp_path / "page.jpg")
    with pytest.raises(ImageError, match="E105 image1: "):
        predictor.match(DEMO[0], np.zeros(3))
    for height, width in ((1, 1), (1, 50), (50, 1), (7, 7), (31, 400)):
        matches = predictor.match(noise(height, width), DEMO[0])
        assert (len(matches), matches.reason) == (0, "too_small")


def test_many_pairs_come_in_order_up_to_the_first_that_cannot_be_read(
    predictor: Predictor,
) -> None:
    a, b, tiny = noise(64, 64), noise(70, 50, 1), noise(5, 5)
    pairs = [(a, b), (a, tiny), (b, a, None, None), (a, "none.png"), (a, b)]
    results = predictor.match_many(pairs, batch_size=4)
    found = [next(results) for _ in range(3)]
    assert [matches.reason for matches in found] == ["", "too_small", ""]
    require_same(found[2], predictor.match(b, a))
    with pytest.raises(UsageError, match=r"E111 none\.png"):
        next(results)
    assert list(results) == []
    for wrong in (DEMO, [(a, b, None)]):
        with pytest.raises(UsageError, match=r"E201 pairs: got .*expected \(image0, image1\)"):
            list(predictor.match_many(wrong))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("backbone", "forward"),
        ("position", "forward"),
        ("transformer", "forward"),
        ("coarse", "match"),
        ("fine", "refine"),
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_a_batch_beyond_memory_is_halved_and_a_pair_alone_is_named(
    monkeypatch: pytest.MonkeyPatch, part: str, method: str, error: Exception
) -> None:
    predictor = Predictor(tiny_model(), device="cpu")
    pairs = [(noise(64, 96, i), noise(70, 50, 9 + i)) for i in range(3)]
    expected = [predictor.match(*pair) for pair in pairs]
    module, faults = getattr(predictor.model, part), [error]
    real = getattr(module, method)

    def tight(*arguments: object, **options: object) -> object:
        if faults:
            raise faults.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(module, method, tight)
    for found, alone in zip(predictor.match_many(pairs, batch_size=3), expected, strict=True):
        require_same(found, alone)
    assert not faults
    faults[:] = [error] * 9
    with pytest.raises(MemoryLimitError, match=r"E131 cpu: .*96 x 64 and 64 x 96 .*max_side"):
        list(predictor.match_many(pairs, batch_size=3))


def test_other_faults_of_the_network_are_not_taken_for_a_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = Predictor(tiny_model(), device="cpu")
    monkeypatch.setattr(predictor.model.fine, "refine", None)
    with pytest.raises(TypeError):
        predictor.match(noise(64, 64), noise(64, 64))


def test_a_warning_is_given_once(
    predictor: Predictor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "wrong.png"
    Image.fromarray((noise(40, 40) * 255).astype(np.uint8)).save(path, "JPEG")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            predictor.match(path, path)
    assert caplog.messages == [f"{path}: is JPEG, not PNG"]


def test_repeats_are_equal_to_the_last_bit(predictor: Predictor) -> None:
    image0, image1 = noise(120, 90), noise(75, 140, 1)
    digests = {digest(predictor.match(image0, image1)) for _ in range(20)}
    assert len(digests) == 1


def digest(matches: Matches) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for a in matches.numpy())).hexdigest()


def test_importing_the_package_alone_loads_no_torch() -> None:
    program = "import sys, matcher; dir(matcher); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "False\n"
    import matcher

    assert all(getattr(matcher, name) for name in matcher.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = matcher.nothing


PROCESS = """
from tests.test_predictor import Predictor, digest, noise, tiny_model, torch
torch.set_num_threads(1)
predictor = Predictor(tiny_model(), device="cpu", dtype="float32")
print(digest(predictor.match(noise(120, 90), noise(75, 140, 1))))
"""


def digests_of_processes(count: int) -> set[str]:
    outputs = set()
    for seed in range(count):
        done = subprocess.run(
            [sys.executable, "-c", PROCESS],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        )
        outputs.add(done.stdout.strip())
    return outputs


def test_another_process_gives_the_same_bits(predictor: Predictor) -> None:
    here = digest(predictor.match(noise(120, 90), noise(75, 140, 1)))
    assert digests_of_processes(1) == {here}


@pytest.mark.slow
def test_five_processes_give_the_same_bits() -> None:
    assert len(digests_of_processes(5)) == 1


def test_two_threads_give_what_one_gives(predictor: Predictor) -> None:
    image0, image1 = noise(120, 90), noise(75, 140, 1)
    one = predictor.match(image0, image1)
    torch.set_num_threads(2)
    require_same(predictor.match(image0, image1), one)


def test_half_precision_finds_nearly_the_same(compact: Predictor) -> None:
    half = Predictor(compact.model, device="cpu", max_side=320, dtype=torch.bfloat16)
    full = Predictor(compact.model, device="cpu", max_side=320, dtype=torch.float32)
    found, expected = half.match(*DEMO), full.match(*DEMO)
    assert found.scores.dtype == torch.float32
    there = {tuple(point) for point in expected.keypoints0.tolist()}
    common = sum(tuple(point) in there for point in found.keypoints0.tolist())
    assert common >= 0.8 * len(expected) > 20


@pytest.mark.parametrize(
    ("units", "half", "expected"),
    [
        (True, 0.5, torch.bfloat16),
        (True, 2.0, torch.float32),
        (False, 0.5, torch.float32),
    ],
)
def test_auto_computes_in_bfloat16_where_that_is_faster(
    compact: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    units: bool,
    half: float,
    expected: torch.dtype,
) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: units, raising=False)
    monkeypatch.setattr(
        runtime, "_seconds_of_product", lambda dtype: half if dtype == torch.bfloat16 else 1.0
    )
    runtime._gains.cache_clear()
    try:
        assert Predictor(compact.model, device="cpu").dtype == expected
        assert Predictor(compact.model, device="cpu", dtype=None).dtype == expected
        assert Predictor(compact.model, device="cpu", dtype="float16").dtype == torch.float16
    finally:
        runtime._gains.cache_clear()


def test_bfloat16_gives_the_same_bits_every_time(compact: Predictor) -> None:
    half = Predictor(compact.model, device="cpu", max_side=320, dtype="bfloat16")
    first = half.match(*DEMO)
    for _ in range(2):
        again = half.match(*DEMO)
        assert torch.equal(again.keypoints1, first.keypoints1)
        assert torch.equal(again.scores, first.scores)


def test_bfloat16_gives_the_same_bits_in_a_batch(compact: Predictor) -> None:
    half = Predictor(compact.model, device="cpu", max_side=320, dtype="bfloat16")
    pairs = [DEMO, DEMO[::-1], (DEMO[0][:200], DEMO[1])]
    for found, pair in zip(half.match_many(pairs, batch_size=3), pairs, strict=True):
        alone = half.match(*pair)
        assert torch.equal(found.keypoints1, alone.keypoints1)
        assert torch.equal(found.scores, alone.scores)


def test_bundled_weights_grow_with_the_pixels_unless_told_otherwise(compact: Predictor) -> None:
    config = compact.model.config
    assert (config.coarse.routing, config.transformer.coarsest_cells) == ("auto", 1200)
    by_path = load_matcher(BUNDLED["compact"], device="cpu").model.config
    assert by_path == config
    exact = load_matcher("compact", device="cpu", routing="exact", coarsest_cells=0).model.config
    assert (exact.coarse.routing, exact.transformer.coarsest_cells) == ("exact", 0)
    with pytest.raises(UsageError, match=r"coarse\.routing: got 'fast'"):
        load_matcher("compact", routing="fast")  # pyright: ignore[reportArgumentType]


def test_constant_images_give_no_matches_worth_naming(compact: Predictor) -> None:
    gray, white = np.full((240, 320), 128, np.uint8), np.full((240, 320), 255, np.uint8)
    for pair in ((gray, gray), (gray, white), (gray, DEMO[0]), (DEMO[0], white)):
        matches = compact.match(*pair)
        assert len(matches) <= 5
        assert torch.isfinite(matches.scores).all()


def test_identical_photographs_match_where_they_are(compact: Predictor) -> None:
    matches = compact.match(DEMO[0], DEMO[0])
    assert len(matches) > 1000
    distance = (matches.keypoints0 - matches.keypoints1).norm(dim=1)
    assert (distance < 0.5).float().mean() >= 0.95
    assert len(matches.keypoints0.unique(dim=0)) == len(matches)


def test_swapped_photographs_give_the_same_cells(compact: Predictor) -> None:
    forward, backward = compact.match(*DEMO), compact.match(*reversed(DEMO))
    assert len(forward) > 100
    same0 = torch.cdist(forward.keypoints0, backward.keypoints1) < 8
    same1 = torch.cdist(forward.keypoints1, backward.keypoints0) < 8
    both = same0 & same1
    assert both.any(dim=1).float().mean() >= 0.9
    assert both.any(dim=0).float().mean() >= 0.9


@pytest.mark.slow
def test_more_matches_than_sixteen_bits_count(predictor: Predictor) -> None:
    image = noise(1480, 1600)
    whole = Predictor(predictor.model, device="cpu", max_side=None)
    matches = whole.match(image, image)
    assert len(matches) > 32_767
    require_sound(matches, (1600, 1480), (1600, 1480))
    assert (matches.keypoints0 - matches.keypoints1).abs().max() < 0.5


def half(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image.convert("L").resize((320, 240)))


def test_a_turned_image_matches_as_an_upright_one_where_asked_to(compact: Predictor) -> None:
    turning = Predictor(compact.model, device="cpu", rotate="auto", dtype="float32")
    turning.quality = compact.quality
    image0, image1 = map(half, DEMO)
    upright = turning.match(image0, image1)
    assert torch.equal(upright.keypoints1, compact.match(image0, image1).keypoints1)
    assert upright.turned == 0
    on_its_head = np.rot90(image1, 2)
    found = turning.match(image0, on_its_head)
    assert (found.turned, len(found)) == (2, len(upright))
    assert repr(found).endswith(", turned=2)")
    once = Predictor(compact.model, device="cpu", zoom="off", dtype="float32")
    assert len(once.match(image0, on_its_head)) < len(upright) / 4
    back = torch.tensor([319.0, 239.0]) - found.keypoints1
    assert (back - upright.keypoints1).abs().max() < 1e-3
    few = turning.match(image0, on_its_head, top_k=5)
    assert (few.turned, len(few)) == (2, 5)
    many = next(iter(turning.match_many([(image0, on_its_head)])))
    assert torch.equal(many.keypoints1, found.keypoints1)


def test_masks_turn_with_their_image(compact: Predictor) -> None:
    turning = Predictor(compact.model, device="cpu", rotate=[2])
    image0, image1 = half(DEMO[0]), np.rot90(half(DEMO[1]), 2)
    mask = np.zeros(image1.shape, bool)
    mask[:, :200] = True
    found = turning.match(image0, image1, mask1=mask)
    assert found.turned == 2
    assert len(found) > 100
    assert found.keypoints1[:, 0].max() < 204


def test_unrelated_images_stay_as_they_are(compact: Predictor) -> None:
    turning = Predictor(compact.model, device="cpu", rotate="auto", max_side=160)
    matches = turning.match(DEMO[0], noise(120, 160))
    assert matches.turned == 0
    assert not judge(matches).reliable


def test_reading_is_up_to_the_options(predictor: Predictor, tmp_path: Path) -> None:
    gray = (noise(64, 96) * 3000).astype(np.uint16)
    gray[:, :32] = 60000
    Image.fromarray(gray).save(tmp_path / "a.tif")
    strict = Predictor(predictor.model, device="cpu", max_pixels=64 * 96 - 1)
    with pytest.raises(ImageError, match="E103"):
        strict.match(tmp_path / "a.tif", noise(64, 64))
    named = Predictor(predictor.model, device="cpu", nodata=60000, bands=[1])
    matches = named.match(tmp_path / "a.tif", noise(64, 96))
    assert len(matches) > 10
    assert matches.keypoints0[:, 0].min() > 28
    assert named.options.bands == (1,)


def test_published_weights_see_pictures_as_they_are() -> None:
    dim = (noise(64, 64) * 30 + 90).astype(np.uint8)
    for config, widened in ((COMPACT_TINY, True), (PUBLISHED_TINY, False)):
        for option, expected in ((None, widened), (True, True), (False, False)):
            read = Predictor(build_matcher(config), device="cpu", stretch=option).reader.read_one
            assert (read(dim).image.normalization.how == "percentiles") == expected


def part_of_the_demo(share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph, the same small amid gray, and the (2, 3) affine map from it to there."""
    with Image.open(DEMO[0]) as photograph:
        image = np.asarray(photograph.convert("L").resize((320, 240)))
    small = np.array([[share, 0, 100], [0, share, 70]])
    return image, cv2.warpAffine(image, small, (320, 240), borderValue=(120,)), small


def test_a_closer_look_at_what_both_images_show_finds_more(compact: Predictor) -> None:
    image0, image1, small = part_of_the_demo(share=0.4)
    once = Predictor(compact.model, device="cpu", dtype="float32", zoom="off")
    few, more = once.match(image0, image1), compact.match(image0, image1)
    assert len(more) > 2 * len(few) > 20
    points0, points1, _ = more.numpy()
    off = np.linalg.norm(points0 @ small[:, :2].T + small[:, 2] - points1, axis=1)
    assert (off < 2).mean() > 0.9


def test_what_is_masked_stays_so_in_a_closer_look(compact: Predictor) -> None:
    image0, image1, _ = part_of_the_demo(share=0.4)
    mask = np.ones(image0.shape, bool)
    mask[:, 160:] = False
    matches = compact.match(image0, image1, mask0=mask)
    assert len(matches) > 20
    assert (matches.keypoints0[:, 0] < 168).all()


def test_places_in_a_zoomed_part_are_those_of_the_image(compact: Predictor) -> None:
    ramp = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (100, 1))
    whole = compact.reader.read_one(ramp)
    part = compact.reader.zoomed(whole, Window(40, 10, 120, 60))
    assert part.size == (160, 100)
    places = torch.tensor([[20.0, 30.0], [140.0, 80.0]])
    seen = part.canvas[0, places[:, 1].long(), places[:, 0].long()]
    at = part.to_original(places)
    torch.testing.assert_close(seen, at[:, 0] / 199, atol=1e-3, rtol=0)
    assert ((at[:, 1] > 10) & (at[:, 1] < 60)).all()
