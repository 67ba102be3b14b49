"""Masks of a collection: where nothing matches, and what a changed mask undoes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher.batch.masks import Masks
from matcher.errors import UsageError
from tests.batch.test_collection import packed
from tests.helpers.collections_of_pairs import Outcome

WORDS = ("pairs=img", "output=run", "masks=masks", "export=pack")


def write_mask(path: Path, image: Path, rows: slice) -> None:
    """White in some rows alone."""
    with Image.open(image) as picture:
        mask = np.zeros(picture.size[::-1], np.uint8)
    mask[rows] = 255
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(mask).save(path)


def rows_of_first_image(folder: Path) -> np.ndarray:
    """The rows of the matches of all pairs of the first image."""
    found = packed(folder)
    of_pair = np.repeat(np.arange(len(found["pairs"])), np.diff(found["start"]).astype(int))
    return found["keypoints0"][found["pairs"][of_pair, 0] == 0, 1]


def test_nothing_matches_where_a_mask_is_black(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    mask, image = tmp_path / "masks" / "im 0.png", tmp_path / "img" / "im 0.png"
    write_mask(mask, image, slice(0, 48))
    code, out, err = program(*WORDS)
    assert (code, "masks     of 1 of 5 images" in out) == (0, True), err
    rows = rows_of_first_image(tmp_path / "run")
    assert len(rows) > 20
    assert rows.max() < 48
    write_mask(mask, image, slice(48, 96))
    code, out, err = program(*WORDS)
    assert "changed   1 images: 'im 0.png'; their pairs are matched anew" in out
    rows = rows_of_first_image(tmp_path / "run")
    assert len(rows) > 20
    assert rows.min() > 47


def test_a_mask_of_another_size_fails_its_pairs(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    Image.new("L", (20, 20)).save(tmp_path / "masks" / "im 0.png")
    code, out, _ = program(*WORDS)
    assert (code, "4 failed:E201" in out) == (3, True)
    reason = "E201 masks/im 0.png: got (20, 20); expected (H, W) = (96, 64), that of the image"
    assert out.count(f"reason    {reason}\n") == 1
    assert reason in (tmp_path / "run" / "run.log").read_text()


def test_why_an_image_cannot_be_read_is_told_once(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "img" / "im 5.png").write_text("no image")
    code, out, _ = program("pairs=img", "output=run")
    assert (code, "5 failed:E101" in out) == (3, True)
    assert out.count("reason    E101 img/im 5.png: text, not an image") == 1


@pytest.mark.parametrize("name", ["sub/a.jpg", "sub/a.jpg.png", "sub/a.png"])
def test_a_mask_has_the_name_of_its_image_or_ends_in_png(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).touch()
    assert Masks(str(tmp_path)).path("sub/a.jpg") == str(tmp_path / name)
    assert Masks(str(tmp_path)).path("b.jpg") is None
    assert Masks(None).path("sub/a.jpg") is None


def test_a_missing_folder_of_masks_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E111 .*masks= is a folder"):
        Masks(str(tmp_path / "masks"))
