"""Refined matches as the predictor gives them: sub-pixel, in stored pixels, every time the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from matcher import Matches, Predictor, load_matcher
from matcher.errors import UsageError
from matcher.images.load import load_image
from matcher.images.normalize import pack_gray, unpack_gray
from matcher.images.preprocess import prepare
from matcher.network.photometric import refine_matches
from matcher.network.quality import FIGURES, figures_of
from tests.helpers.models import COMPACT_TINY, noise, tiny_model
from tests.helpers.shifted_images import fourier_shift, texture

SIZE = (192, 256)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def compact() -> Predictor:
    return load_matcher("compact", device="cpu", offline=True)


def levels(image: np.ndarray, bits: int = 8) -> np.ndarray:
    """An image in [0, 1] as one of 8 or 16 bits."""
    dtype = np.uint8 if bits == 8 else np.uint16
    return (np.clip(image, 0, 1) * np.iinfo(dtype).max).round().astype(dtype)


def inner_errors(
    matches: Matches, shift: tuple[float, float], size: tuple[int, int] = SIZE
) -> torch.Tensor:
    """(M, 2) of matches at least 16 px inside, where the image that was moved is whole."""
    height, width = size
    x, y = matches.keypoints0.unbind(1)
    inner = (x > 16) & (x < width - 16) & (y > 16) & (y < height - 16)
    found = matches[inner]
    return found.keypoints1 - found.keypoints0 - torch.tensor(shift)


def by_place(matches: Matches) -> Matches:
    """In an order that does not depend on scores."""
    return matches[np.lexsort(matches.keypoints0.numpy().T)]


@pytest.mark.parametrize("bits", [8, 16])
def test_parts_of_pixels_are_found_without_a_pull_to_whole_ones(
    compact: Predictor, bits: int
) -> None:
    parts = []
    for number, shift in enumerate([(0.0, 0.5), (2.25, -1.125), (0.75, 3.6)]):
        image = texture(number, SIZE, cutoff=0.3)
        moved = fourier_shift(image, shift)
        matches = compact.match(levels(image, bits), levels(moved, bits))
        errors = inner_errors(matches, shift)
        assert len(errors) > 100
        assert errors.norm(dim=1).median() <= 0.03
        parts.append(errors.median(dim=0).values)
    assert torch.stack(parts).abs().max() <= 0.01


def test_a_shrunk_photograph_is_refined_in_its_stored_pixels(compact: Predictor) -> None:
    size, shift = (384, 512), (3.3, -5.6)
    image = texture(3, size, cutoff=0.15)
    small = Predictor(compact.model, device="cpu", max_side=256)
    matches = small.match(levels(image), levels(fourier_shift(image, shift)))
    errors = inner_errors(matches.converged_only(), shift, size).norm(dim=1)
    assert len(errors) > 200
    assert errors.median() <= 0.05


def test_turned_files_are_refined_in_stored_pixels(compact: Predictor, tmp_path: Path) -> None:
    image, shift = texture(5, SIZE, cutoff=0.2), (0.4, 1.7)
    exif = Image.Exif()
    exif[0x0112] = 6
    names = [tmp_path / "0.png", tmp_path / "1.png"]
    for name, each in zip(names, (image, fourier_shift(image, shift)), strict=True):
        Image.fromarray(levels(each)).save(name, exif=exif)
    turning = Predictor(compact.model, device="cpu", apply_exif=True)
    errors = inner_errors(turning.match(*names), shift).norm(dim=1)
    assert len(errors) > 100
    assert errors.median() <= 0.05


def saturated(image: np.ndarray, seed: int) -> np.ndarray:
    return 2.5 * image - 0.75


def half_a_wall(image: np.ndarray, seed: int) -> np.ndarray:
    return np.where(np.arange(SIZE[1]) > 128, 0.5, image)


def noisy(image: np.ndarray, seed: int) -> np.ndarray:
    return image + np.random.default_rng(seed).normal(0, 0.08, SIZE)


@pytest.mark.parametrize("spoil", [saturated, half_a_wall, noisy])
def test_bad_images_are_not_made_worse(
    compact: Predictor, spoil: Callable[[np.ndarray, int], np.ndarray]
) -> None:
    image, shift = texture(6, SIZE, cutoff=0.2), (0.4, 0.3)
    image0, image1 = spoil(image, 0), spoil(fourier_shift(image, shift), 1)
    plain = Predictor(compact.model, device="cpu", refine="none")
    before, after = (p.match(levels(image0), levels(image1)) for p in (plain, compact))
    assert len(after) > 0.9 * len(before) > 0
    worse = (
        inner_errors(after, shift).norm(dim=1).median()
        - inner_errors(before, shift).norm(dim=1).median()
    )
    assert worse <= 0.1
    assert after.keypoints1.isfinite().all()
    assert after.correlation is not None
    assert after.correlation.isfinite().all()


def test_without_refinement_matches_say_nothing_of_it() -> None:
    plain = Predictor(tiny_model(), device="cpu", refine="none")
    matches = plain.match(noise(96, 96), noise(96, 96, 1))
    assert matches.converged is None
    assert matches.correlation is None
    with pytest.raises(UsageError, match=r"E201 refine: got 'none'; expected .*photometric"):
        matches.converged_only()
    with pytest.raises(UsageError, match="E201 refine: got 'bilinear'"):
        Predictor(tiny_model(), refine="bilinear")  # pyright: ignore[reportArgumentType]


def test_convergence_follows_every_choice_of_matches() -> None:
    points = torch.arange(10.0).view(5, 2)
    matches = Matches(
        points,
        points + 1,
        torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2]),
        converged=torch.tensor([True, False, True, True, False]),
        correlation=torch.tensor([0.9, 0.1, 0.7, 0.95, 0.2]),
    )
    assert matches.converged_only().scores.tolist() == pytest.approx([0.1, 0.3, 0.8])
    best = matches.top(2)
    assert best.converged is not None
    assert best.correlation is not None
    assert best.converged.tolist() == [False, True]
    assert best.correlation.tolist() == pytest.approx([0.1, 0.95])
    assert len(Matches.empty("masked").converged_only()) == 0
    with pytest.raises(ValueError, match=r"converged \(2,\) for 5 matches"):
        Matches(points, points, matches.scores, converged=torch.ones(2, dtype=torch.bool))


def test_the_best_matches_are_those_of_quality_that_converged() -> None:
    points = torch.arange(8.0).view(4, 2)
    matches = Matches(
        points,
        points,
        torch.tensor([0.9, 0.5, 0.4, 0.3]),
        converged=torch.tensor([False, True, True, False]),
        quality=torch.tensor([0.9, 0.2, 0.8, 0.3]),
    )
    with pytest.raises(UsageError, match="E201 top: got -1"):
        matches.top(-1)
    assert matches.top(3).scores.tolist() == pytest.approx([0.4, 0.9, 0.5])
    assert replace(matches, quality=None).top(2).scores.tolist() == pytest.approx([0.9, 0.5])


def test_batches_and_threads_give_the_same_refined_matches(compact: Predictor) -> None:
    images = [levels(texture(seed, (128, 160), cutoff=0.2)) for seed in range(3)]
    moved = [levels(fourier_shift(texture(s, (128, 160), cutoff=0.2), (0.3, s))) for s in range(3)]
    pairs = list(zip(images, moved, strict=True))
    alone = [compact.match(*pair) for pair in pairs]
    together = list(compact.match_many(pairs, batch_size=3))
    torch.set_num_threads(2)
    threaded = [compact.match(*pair) for pair in pairs]
    for one, *others in zip(alone, together, threaded, strict=True):
        expected = by_place(one)
        for other in map(by_place, others):
            assert (expected.keypoints1 - other.keypoints1).abs().max() <= 1e-3
            assert torch.equal(expected.converged, other.converged)  # pyright: ignore


def test_masks_of_the_user_and_of_the_file_are_kept_upright(tmp_path: Path) -> None:
    image = np.zeros((40, 60), np.float32)
    image[:, 50:] = np.nan
    image[10:30, :40] = noise(20, 40)
    allowed = np.ones((40, 60), bool)
    allowed[:5] = False
    mask = prepare(load_image(image), allowed, COMPACT_TINY, None).mask
    assert mask is not None
    assert mask.shape == (40, 60)
    assert not mask[:5].any()
    assert not mask[:, 50:].any()
    assert mask[5:, :50].all()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(levels(noise(40, 60))).save(tmp_path / "turned.png", exif=exif)
    turned = load_image(tmp_path / "turned.png", apply_exif=True)
    mask = prepare(turned, allowed, COMPACT_TINY, None).mask
    assert mask is not None
    assert mask.shape == turned.gray.shape == (60, 40)
    assert not mask[:, 35:].any()
    assert mask[:, :35].all()


@pytest.mark.parametrize(("bits", "bytes_a_pixel"), [(8, 1), (16, 2)])
def test_packed_gray_values_come_back_to_the_last_bit(bits: int, bytes_a_pixel: int) -> None:
    gray = load_image(levels(noise(300, 400), bits)).gray
    packed = pack_gray(gray)
    assert packed.nbytes == bytes_a_pixel * gray.size
    assert np.array_equal(unpack_gray(packed), gray)
    odd = noise(30, 40)
    assert pack_gray(odd) is odd
    assert np.array_equal(unpack_gray(odd), odd)


def test_the_quality_tells_right_matches_from_wrong_ones(compact: Predictor) -> None:
    image, shift = texture(6, SIZE, cutoff=0.2), (3.4, 1.3)
    moved = fourier_shift(image, shift)
    moved[:, 128:] = texture(7, SIZE, cutoff=0.2)[:, 128:]  # half of it shows something else
    low = Predictor(compact.model, device="cpu", threshold=0.0)
    assert low.match(levels(image), levels(moved)).quality is None
    low.quality = compact.quality
    matches = low.match(levels(image), levels(moved))
    assert matches.quality is not None
    assert ((matches.quality >= 0) & (matches.quality <= 1)).all()
    right = (matches.keypoints1 - matches.keypoints0 - torch.tensor(shift)).norm(dim=1) < 3
    assert 20 < int(right.sum()) < len(matches) - 20
    order = matches.quality.argsort(descending=True)
    best, worst = right[order[: int(right.sum())]], right[order[int(right.sum()) :]]
    assert best.float().mean() > 0.8 > 0.3 > worst.float().mean()


def test_one_match_alone_and_none_have_figures(compact: Predictor) -> None:
    image = levels(texture(6, SIZE))
    pair = compact.reader.read(image, image)
    for count in (0, 1, 2):
        points = torch.full((count, 2), 80.0)
        placed = Matches(points, points, torch.full((count,), 0.5))
        figures = figures_of(pair, placed, refine_matches(pair, placed, torch.device("cpu")))
        assert figures.shape == (count, len(FIGURES))
        assert figures.isfinite().all()
