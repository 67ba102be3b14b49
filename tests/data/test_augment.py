"""Photometric differences of real pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data.config import DataConfig
from data.real.augment import Augmented
from matcher.errors import UsageError
from matcher.structures import ImagePair
from matcher.validation.checked import config_from_dict
from tests.helpers.planes import plane_pair


class Twice:
    """The same picture on both sides, the right half of the first one padding."""

    def __init__(self) -> None:
        pair = plane_pair(0)
        mask = torch.ones_like(pair.image0[:, 0], dtype=torch.bool)
        mask[..., mask.shape[-1] // 2 :] = False
        image = pair.image0 * mask[:, None]
        self.pair = replace(pair, image0=image, image1=pair.image0, mask0=mask)

    def __len__(self) -> int:
        return 7

    def __getitem__(self, key: tuple[int, int]) -> ImagePair:
        return self.pair


def test_what_is_drawn_depends_on_seed_epoch_and_index_alone() -> None:
    pairs = Augmented(Twice(), 1.0, seed=3)
    first = pairs[2, 5]
    torch.rand(5)
    again = Augmented(Twice(), 1.0, seed=3)[2, 5]
    assert torch.equal(first.image0, again.image0)
    assert torch.equal(first.image1, again.image1)
    for other in (pairs[3, 5], pairs[2, 6], Augmented(Twice(), 1.0, seed=4)[2, 5]):
        assert not torch.equal(first.image1, other.image1)


def test_no_draw_of_the_program_is_used_up() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _ = Augmented(Twice(), 1.0, seed=0)[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_pictures_change_by_themselves_and_padding_stays_black() -> None:
    plain = Twice()
    pairs = Augmented(plain, 1.0, seed=0)
    changes = []
    for index in range(6):
        pair = pairs[0, index]
        width = pair.image0.shape[-1] // 2
        assert pair.image0[..., width:].abs().max() == 0
        assert 0 <= pair.image1.min() <= pair.image1.max() <= 1
        left, right = pair.image0[..., :width].mean(), pair.image1[..., :width].mean()
        changes.append(abs(left - right))
        assert pair.geometry is plain.pair.geometry
    assert max(changes) > 0.05


@pytest.mark.parametrize("strength", [-0.1, 2.5])
def test_impossible_strengths_are_named(strength: float) -> None:
    with pytest.raises(UsageError, match="augment"):
        config_from_dict(DataConfig, {"source": "rgbd", "files": {"augment": strength}})
