"""Single points of one image in another: where they are, and that they cannot be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from matcher import LocatedPoints, Predictor, load_matcher
from matcher.errors import UsageError
from matcher.geometry.cameras import warp_points
from matcher.structures import ImagePair
from tests.helpers.models import noise, tiny_model
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


def levels(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def grid(size: tuple[int, int], step: int, margin: int) -> torch.Tensor:
    """(N, 2) points between the whole pixels, at least `margin` inside."""
    y, x = (torch.arange(margin + 0.37, side - margin, step) for side in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)


def truth(pair: ImagePair, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places in image 1, and which points are visible there and which are not, by exact depth.

    Points at the edges of surfaces are neither.
    """
    geometry = pair.geometry
    assert geometry is not None
    depth0, depth1 = geometry.depth0[0], geometry.depth1[0]
    height, width = depth1.shape
    x, y = points.long().unbind(1)
    depth = depth0[y, x]
    there, z = warp_points(points[None], depth[None], geometry.K0, geometry.K1, geometry.T_0to1)
    there, z = there[0], z[0]
    inside = ((there >= 0) & (there <= torch.tensor([width - 1, height - 1]))).all(dim=1) & (z > 0)
    u, v = there.round().long().unbind(1)
    behind = z / depth1[v.clamp(0, height - 1), u.clamp(0, width - 1)].clamp(min=1e-6) - 1
    known = depth > 0
    return there, known & inside & (behind.abs() < 0.01), known & (~inside | (behind > 0.03))


def located_in_scenes(
    compact: Predictor, count: int, seed: int, strength: float
) -> tuple[torch.Tensor, ...]:
    """Errors, verdicts and truth of points of rendered scenes."""
    config = SyntheticConfig(
        size=(288, 384), pairs=count, seed=seed, procedural=90, texture_seed=seed,
        overlap=(0.3, 0.9), strength=strength,
    )  # fmt: skip
    parts = []
    for index in range(count):
        pair = render(SyntheticScenes(config)[index])
        images = (levels(image[0, 0].numpy()) for image in (pair.image0, pair.image1))
        points = torch.floor(torch.rand(300, 2, generator=torch.Generator().manual_seed(index))
                             * torch.tensor([376, 280])) + 4  # fmt: skip
        located = compact.locate(next(images), next(images), points)
        there, visible, hidden = truth(pair, points)
        parts.append(((located.points1 - there).norm(dim=1), located.visible, visible, hidden))
    return tuple(map(torch.cat, zip(*parts, strict=True)))


@pytest.mark.parametrize("strength", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_points_of_rendered_scenes_are_found_or_told_to_be_hidden(
    compact: Predictor, strength: float
) -> None:
    errors, told, visible, hidden = located_in_scenes(compact, 6, 20_261_128, strength)
    assert int(hidden.sum()) > 100
    assert errors[visible & told].median() <= 0.5
    assert (~told)[hidden].float().mean() >= 0.9


def test_places_are_exact_to_a_tenth_of_a_pixel(compact: Predictor) -> None:
    image, shift = texture(1, SIZE, cutoff=0.25), (3.25, -1.6)
    points = grid(SIZE, step=9, margin=20)
    located = compact.locate(levels(image), levels(fourier_shift(image, shift)), points)
    errors = (located.points1 - points - torch.tensor(shift)).norm(dim=1)
    assert located.visible.float().mean() > 0.95
    assert errors.median() < 0.05
    assert errors[located.visible].quantile(0.95) < 0.5


def test_a_point_outside_of_image_1_is_not_visible(compact: Predictor) -> None:
    wide = levels(texture(2, (SIZE[0], SIZE[1] + 40), cutoff=0.25))
    beyond = torch.tensor([[x, y] for x in (230.0, 240, 250) for y in (50.0, 100, 150)])
    located = compact.locate(wide[:, 40:], wide[:, :-40], beyond)
    assert not located.visible.any()


def test_stored_pixels_are_those_of_turned_files_and_shrunk_ones(
    compact: Predictor, tmp_path: Path
) -> None:
    image, shift = texture(5, (384, 512), cutoff=0.1), (6.5, -4.0)
    exif = Image.Exif()
    exif[0x0112] = 6
    names = [tmp_path / "0.png", tmp_path / "1.png"]
    Image.fromarray(levels(image)).save(names[0], exif=exif)
    Image.fromarray(levels(fourier_shift(image, shift))).save(names[1], exif=exif)
    points = grid((384, 512), step=24, margin=40)
    small = Predictor(compact.model, device="cpu", max_side=256)
    located = small.locate(names[0], names[1], points)
    errors = (located.points1 - points - torch.tensor(shift)).norm(dim=1)
    assert located.visible.float().mean() > 0.9
    assert errors.median() < 0.1


def test_a_turned_image_gives_points_of_the_image_as_stored(compact: Predictor) -> None:
    image = levels(texture(6, SIZE, cutoff=0.25))
    turned = np.ascontiguousarray(np.rot90(image))
    points = grid(SIZE, step=20, margin=30)
    turning = Predictor(compact.model, device="cpu", rotate=[1, 2, 3])
    located = turning.locate(image, turned, points)
    expected = torch.stack([points[:, 1], SIZE[1] - 1 - points[:, 0]], dim=1)
    assert located.visible.float().mean() > 0.9
    assert (located.points1 - expected).norm(dim=1).median() < 0.05


def test_a_point_is_found_by_itself(compact: Predictor) -> None:
    image = texture(7, SIZE, cutoff=0.25)
    pair = levels(image), levels(fourier_shift(image, (2.5, 1.0)))
    points = grid(SIZE, step=30, margin=20)
    together = compact.locate(*pair, points)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    shuffled, single = compact.locate(*pair, points[order]), compact.locate(*pair, points[4:5])
    assert torch.equal(shuffled.points1, together.points1[order])
    assert torch.equal(single.points1, together.points1[4:5])
    assert torch.equal(single.confidence, together.confidence[4:5])


def test_points_may_lie_in_memory_as_they_like() -> None:
    plain = Predictor(tiny_model(), device="cpu", threshold=1.0)
    points = np.array([[50, 60], [10, 20]], np.float32)
    fixed = points[::-1].astype(">f4")
    fixed.flags.writeable = False
    learned = torch.from_numpy(points).flip(0).requires_grad_()
    for given in (points[::-1], fixed, points[::-1, None], learned, [[10, 20], [50, 60]]):
        located = plain.locate(noise(96, 96), noise(96, 96, 1), given)  # pyright: ignore
        assert located.points0.tolist() == [[10, 20], [50, 60]]
        assert not located.points0.requires_grad
    located = plain.locate(noise(96, 96), noise(96, 96, 1), points)
    points[:] = 0
    assert located.points0.tolist() == [[50, 60], [10, 20]]


def test_without_matches_nothing_is_visible_and_places_are_unknown() -> None:
    plain = Predictor(tiny_model(), device="cpu", threshold=1.0)
    located = plain.locate(noise(96, 96), noise(96, 96, 1), [[10, 10], [50, 60]])
    assert not located.visible.any()
    assert located.points1.isnan().all()
    assert located.confidence.tolist() == [0, 0]
    tiny = plain.locate(noise(16, 16), noise(96, 96, 1), np.zeros((0, 2)))
    assert isinstance(tiny, LocatedPoints)
    assert len(tiny) == 0


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[1, 2, 3]], r"E201 points: got .*expected \(N, 2\)"),
        (np.zeros((2, 4)), r"E201 points: got .*expected \(N, 2\)"),
        (np.zeros((1, 2, 1)), r"E201 points: got .*expected \(N, 2\)"),
        ([10**400, 1], r"E201 points: got .*expected \(N, 2\)"),
        ("here", r"E201 points: got"),
        ([[96, 5]], r"E201 points: got .*\(96, 5\).*96 x 64 pixels"),
        ([[3, float("nan")]], r"E201 points: got .*nan"),
        ([[-1, 5]], r"E201 points: got .*\(-1, 5\)"),
    ],
)
def test_points_that_cannot_be_are_refused(points: object, message: str) -> None:
    plain = Predictor(tiny_model(), device="cpu")
    with pytest.raises(UsageError, match=message):
        plain.locate(noise(64, 96), noise(64, 96, 1), points)  # pyright: ignore[reportArgumentType]
