"""Folders of images: order, what is left out and told, links, sequences."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from matcher.batch.folders import natural, read_folder
from matcher.batch.pairs import find_pairs
from matcher.errors import UsageError
from matcher.images import suffixes
from matcher.images.suffixes import SUFFIXES


def make(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return str(folder)


def listed(folder: str, outside: bool = False) -> tuple[list[str], list[str]]:
    told: list[str] = []
    return read_folder(folder, outside=outside, warn=told.append).names, told


def neighbor_names(folder: str, window: int = 1) -> list[tuple[str, str]]:
    pairs, _ = find_pairs(folder, select="sequential", window=window)
    return list(pairs.named())


def test_numbers_in_names_count_by_their_value() -> None:
    names = [
        "frame10.jpg",
        "frame2.jpg",
        "frame1.jpg",
        "a12b3.png",
        "a12b20.png",
        "7.png",
        "07.png",
    ]
    assert sorted(names, key=natural) == [
        *("07.png", "7.png", "a12b3.png", "a12b20.png"),
        *("frame1.jpg", "frame2.jpg", "frame10.jpg"),
    ]
    assert sorted(["b/1.jpg", "a10/1.jpg", "a9/2.jpg", "z.jpg"], key=natural) == [
        *("z.jpg", "a9/2.jpg", "a10/1.jpg", "b/1.jpg"),
    ]


def test_images_of_a_folder_stay_together_whatever_lies_beside_it(tmp_path: Path) -> None:
    folder = make(tmp_path, "1.jpg", "a/1.jpg", "a/b/1.jpg", "a/2.jpg", "a01/1.jpg", "a1/1.jpg")
    make(tmp_path, "a01/2.jpg", "a1/2.jpg", "z.jpg")
    places = [os.path.dirname(name) for name in listed(folder)[0]]
    assert len(set(places)) == sum(a != b for a, b in zip(places, [None, *places], strict=False))


def test_the_last_frame_of_a_folder_is_not_beside_the_first_of_the_next(tmp_path: Path) -> None:
    folder = make(tmp_path, *(f"{cam}/f{i}.jpg" for cam in ("left", "right") for i in (9, 10, 11)))
    found = neighbor_names(folder, window=5)
    assert ("left/f9.jpg", "left/f10.jpg") in found
    assert len(found) == 6
    assert all(os.path.dirname(a) == os.path.dirname(b) for a, b in found)


def test_an_image_that_is_in_no_pair_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    told: list[str] = []
    find_pairs(folder, select="sequential", warn=told.append)
    assert told == ["left out  1 images that are in no pair: each is alone in its folder"]


@pytest.mark.parametrize("suffix", [s for s, kind in SUFFIXES.items() if kind != "HEIF"])
def test_every_suffix_that_can_be_read_is_listed_in_any_case(tmp_path: Path, suffix: str) -> None:
    folder = make(tmp_path, f"a{suffix}", f"b{suffix.upper()}")
    assert listed(folder) == ([f"a{suffix}", f"b{suffix.upper()}"], [])


def test_pictures_that_cannot_be_read_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suffixes, "find_spec", lambda name: None)
    suffixes._can_read.cache_clear()
    folder = make(tmp_path, "a.jpg", "b.HEIC", "sub/c.HEIC", "d.CR2", "notes.txt", "._a.jpg")
    names, told = listed(folder)
    assert names == ["a.jpg"]
    assert len(told) == 1
    assert "1 .CR2, 2 .HEIC" in told[0]
    assert "convert them to JPEG" in told[0]
    monkeypatch.setattr(suffixes, "find_spec", lambda name: name)
    suffixes._can_read.cache_clear()
    assert listed(folder)[0] == ["a.jpg", "b.HEIC", "sub/c.HEIC"]
    suffixes._can_read.cache_clear()


def test_hidden_folders_hold_no_images(tmp_path: Path) -> None:
    copies = (".picasaoriginals/a.jpg", "sub/.thumbnails/b.jpg", ".ipynb_checkpoints/a.jpg")
    folder = make(tmp_path / ".photos", "a.jpg", "sub/b.jpg", *copies)
    assert listed(folder) == (["a.jpg", "sub/b.jpg"], [])


def test_a_link_out_of_the_folder_is_told_or_followed_once(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "a.jpg")
    make(tmp_path / "out", "b.jpg", "deep/c.jpg")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "out")
    names, told = listed(folder)
    assert names == ["a.jpg"]
    assert len(told) == 2
    assert all("allow_outside_root=true" in line for line in told)
    names, told = listed(folder, outside=True)
    assert (names, told) == (["a.jpg", "again/b.jpg", "again/deep/c.jpg"], [])


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    folder = make(tmp_path / "in", "a.jpg", "sub/b.jpg")
    (tmp_path / "in" / "sub" / "up").symlink_to("..")
    (tmp_path / "in" / "same").symlink_to("sub")
    assert listed(folder) == (["a.jpg", "sub/b.jpg"], [])
    make(tmp_path, "c.jpg")
    (tmp_path / "in" / "parent").symlink_to("..")
    assert listed(folder, outside=True) == (["a.jpg", "parent/c.jpg", "sub/b.jpg"], [])


def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, "a.jpg", "shut/b.jpg")
    scan = os.scandir

    def shut(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", shut)
    names, told = listed(folder)
    assert names == ["a.jpg"]
    assert told == [f"left out  {folder}/shut: cannot read the folder: Permission denied"]


def test_a_folder_of_one_image_holds_no_pair(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E115 .*1 images"):
        find_pairs(make(tmp_path, "a.jpg"))
