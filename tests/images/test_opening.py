"""Every way to open an input is guarded, and every usual suffix is read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from matcher.errors import ImageError, MemoryLimitError, UsageError
from matcher.images import decode
from matcher.images.decode import SUFFIXES, stored_size
from matcher.images.load import load_image, read_mask, read_rgb
from matcher.images.opening import open_regular, unchanged
from tests.helpers.image_files import HEIGHT, WIDTH, picture, rgb

READERS: list[Callable[[Path], object]] = [load_image, read_rgb, read_mask, open_regular]


@pytest.fixture
def odd_files(tmp_path: Path) -> list[Path]:
    os.mkfifo(tmp_path / "pipe.jpg")
    socket.socket(socket.AF_UNIX).bind(str(tmp_path / "s.jpg"))
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    return [*sorted(tmp_path.iterdir()), Path("/dev/zero"), Path("/dev/stdin")]


@pytest.mark.timeout(20)
def test_what_is_no_ordinary_file_is_refused_at_once(odd_files: list[Path]) -> None:
    for path in odd_files[:-1]:
        assert stored_size(path) is None
        for read in READERS:
            with pytest.raises(ImageError, match=r"^E101 .*(a folder|not an ordinary file)"):
                read(path)


@pytest.mark.parametrize(
    "replace",
    [
        lambda image: image.write_bytes(b"longer than before"),
        lambda image: os.utime(image, ns=(1, 1)),
        lambda image: image.unlink(),
        lambda image: os.replace(image.with_name("b.png"), image),
    ],
)
def test_an_image_that_was_replaced_meanwhile_is_told(
    replace: Callable[[Path], object], tmp_path: Path
) -> None:
    images = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for image in images:
        Path(image).write_bytes(b"pixels")
    with unchanged(*images):
        pass
    with pytest.raises(ImageError, match=r"E107 .*a\.png: was replaced"), unchanged(images[0]):
        replace(Path(images[0]))


def test_a_link_that_leads_nowhere_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    for read in READERS:
        with pytest.raises(UsageError, match="E111"):
            read(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "jpg", "JP2", "avif", "webp", "TIF"])
def test_usual_suffixes_are_listed_and_read_without_a_word(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    kind = SUFFIXES[path.suffix.lower()]
    Image.fromarray(picture()).save(path, kind)
    image = load_image(path)
    assert image.size == stored_size(path) == (WIDTH, HEIGHT)
    assert image.warnings == ()


def test_heic_is_told_where_it_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(decode, "_register_heif", lambda: None)
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert ".heic" in SUFFIXES
    with pytest.raises(ImageError, match=r"E105 .*HEIC .*pillow-heif"):
        load_image(path)


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF"])
def test_cut_files_of_new_formats_are_refused(kind: str, tmp_path: Path) -> None:
    data = rgb(kind)
    path = tmp_path / "cut"
    for length in (30, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ImageError, match=r"^E10[12] "):
            load_image(path)


def test_memory_that_ends_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(rgb("PNG"))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode, "_load_pixels", fail)
    with pytest.raises(MemoryLimitError, match=r"E131 .*a.png: out of memory"):
        load_image(path)
