"""Reading images: a file gives its pixels or the promised error, never half an image."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from matcher.errors import ImageError, UsageError
from matcher.geometry.pixels import upright_to_stored
from matcher.images.decode import stored_size
from matcher.images.load import (
    LoadedImage,
    load_image,
    load_mask,
    read_mask,
    read_rgb,
)
from tests.helpers.image_files import (
    FILES,
    HEIGHT,
    WIDTH,
    Case,
    encode,
    gray16,
    picture,
    rgb,
    turned,
    with_alpha,
)


def written(folder: Path, data: bytes, name: str = "image") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def expected_gray() -> np.ndarray:
    return cv2.cvtColor(picture(), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


@pytest.mark.parametrize("case", FILES, ids=[case.name for case in FILES])
def test_every_kind_of_file_gives_its_pixels_or_the_promised_error(
    case: Case, tmp_path: Path
) -> None:
    path = written(tmp_path, case.data(), case.name)
    if case.code is not None:
        for read in (load_image, read_rgb):
            with pytest.raises(ImageError, match=rf"^E{case.code} \S*{case.name}: ") as caught:
                read(path)
            assert "\n" not in str(caught.value)
        return
    image = load_image(path, apply_exif=False)
    assert image.gray.shape == (HEIGHT, WIDTH)
    assert image.gray.dtype == np.float32
    assert image.size == (WIDTH, HEIGHT)
    assert 0 <= image.gray.min() <= image.gray.max() <= 1
    assert len(image.warnings) == bool(case.warning)
    assert all(case.warning in warning for warning in image.warnings)
    color = read_rgb(path)
    assert color.shape == (HEIGHT, WIDTH, 3)
    assert color.dtype == np.uint8


def test_the_matrix_is_as_large_as_promised() -> None:
    assert len(FILES) >= 45
    assert len({case.name for case in FILES}) == len(FILES)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("rgb.jpg", 0.03),
        ("gray.jpg", 0.03),
        ("progressive.jpg", 0.03),
        ("full_chroma.jpeg", 0.03),
        ("cmyk.jpg", 0.06),
        ("upper.PNG", 1e-6),
        ("gray.png", 0.005),
        ("gray16.png", 0.005),
        ("opaque.png", 1e-6),
        ("palette.png", 0.06),
        ("rgb.tif", 1e-6),
        ("lzw.tiff", 1e-6),
        ("cmyk.tiff", 0.01),
        ("gray16.tiff", 0.005),
        ("gray16_big_endian.tiff", 0.005),
        ("unit_float.tiff", 0.005),
        ("pages.tiff", 1e-6),
        ("animated.png", 1e-6),
        ("animated.webp", 1e-6),
        ("lossless.webp", 1e-6),
        ("rgb.bmp", 1e-6),
        ("rgb.ppm", 1e-6),
        ("gray16.pgm", 0.005),
    ],
)
def test_all_formats_of_one_picture_look_alike(name: str, tolerance: float, tmp_path: Path) -> None:
    case = next(case for case in FILES if case.name == name)
    gray = load_image(written(tmp_path, case.data(), name)).gray
    assert np.abs(gray - expected_gray()).mean() <= tolerance


def test_sixteen_bits_look_like_eight(tmp_path: Path) -> None:
    deep = load_image(written(tmp_path, encode(Image.fromarray(gray16()), "PNG"))).gray
    shallow = load_image(written(tmp_path, rgb("PNG", "L"))).gray
    assert np.corrcoef(deep.ravel(), shallow.ravel())[0, 1] >= 0.999
    assert np.abs(deep - shallow).max() < 1e-4


def test_transparency_shows_mid_gray(tmp_path: Path) -> None:
    gray = load_image(written(tmp_path, encode(with_alpha(None), "PNG"), "a.png")).gray
    alpha = np.linspace(0, 255, WIDTH).astype(np.uint8) / 255
    mixed = expected_gray() * alpha + (1 - alpha) * 128 / 255
    assert np.abs(gray - mixed)[:, 1:].max() < 0.006
    hidden = read_rgb(written(tmp_path, encode(with_alpha(0), "PNG"), "b.png"))
    assert (hidden == 128).all()


def test_what_is_all_transparent_is_not_valid(tmp_path: Path) -> None:
    image = load_image(written(tmp_path, encode(with_alpha(None), "PNG"), "a.png"))
    assert image.valid is not None
    assert np.flatnonzero(~image.valid.all(axis=0)).tolist() == [0]
    assert np.array_equal(image.gray[:, 0], image.gray[:, 1])
    for alpha in (0, 1, 255):
        every = encode(with_alpha(alpha), "PNG")
        assert load_image(written(tmp_path, every, "b.png")).valid is None
    dark = np.random.default_rng(0).integers(0, 40, (40, 50, 4), np.uint8)
    dark[..., 3] = 255
    dark[:, 30:, 3] = 0
    shown, cut = (load_image(x, stretch=True).gray for x in (dark, dark[:, :30, :3]))
    assert np.array_equal(shown[:, :30], cut)
    deep = np.full((8, 9, 4), 60000, np.uint16)
    deep[2:, :5, 3] = 0
    found = load_image(deep).valid
    assert found is not None
    assert np.array_equal(found, deep[..., 3] > 0)


def test_pages_that_are_no_images_are_named(tmp_path: Path) -> None:
    page = written(tmp_path, b"<html>not found</html>", "a.jpg")
    pointer = written(tmp_path, b"version https://git-lfs.github.com/spec/v1\n", "b.jpg")
    with pytest.raises(ImageError, match="HTML"):
        load_image(page)
    with pytest.raises(ImageError, match="git-lfs"):
        load_image(pointer)


def test_missing_files_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E111 .*none.png: no such file") as caught:
        load_image(tmp_path / "none.png")
    assert caught.value.exit_code == 2
    with pytest.raises(ImageError, match=r"E101 .* folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match=r"E101 .*not an ordinary file"):
        load_image("/dev/zero")
    with pytest.raises(ImageError, match="E101"):
        load_image("a\0b")
    with pytest.raises(UsageError, match="E111"):
        load_image("")


TRUNCATED = {
    "a.jpg": lambda: rgb("JPEG", quality=95),
    "b.jpg": lambda: rgb("JPEG", quality=95, progressive=True),
    "c.png": lambda: rgb("PNG"),
    "d.webp": lambda: rgb("WEBP", quality=95),
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_cut_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    data = TRUNCATED[name]()
    path = tmp_path / name
    lengths = [len(data) * percent // 100 for percent in range(1, 100)]
    accepted, codes = [], set()
    for length in [*lengths, *range(len(data) - 20, len(data))]:
        path.write_bytes(data[:length])
        try:
            load_image(path)
            accepted.append(length)
        except ImageError as error:
            codes.add(error.code)
    assert accepted == []
    assert codes == {102}


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_can_be_allowed(progressive: bool, tmp_path: Path) -> None:
    data = rgb("JPEG", quality=95, progressive=progressive)
    whole = load_image(written(tmp_path, data, "whole.jpg"))
    path = written(tmp_path, data[: int(len(data) * 0.8)], "cut.jpg")
    cut = load_image(path, allow_truncated=True)
    assert cut.warnings == ("cut off; the missing part is gray",)
    assert np.abs(cut.gray[:16] - whole.gray[:16]).mean() < 0.05
    assert read_rgb(path, allow_truncated=True).shape == (HEIGHT, WIDTH, 3)
    png = written(tmp_path, rgb("PNG")[:-40], "cut.png")
    with pytest.raises(ImageError, match="E102"):
        load_image(png, allow_truncated=True)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_unless_told_otherwise_and_maps_back(
    kind: str, orientation: int, tmp_path: Path
) -> None:
    path = written(tmp_path, turned(kind, orientation))
    stored, upright = load_image(path, apply_exif=False), load_image(path)
    plain = load_image(written(tmp_path, rgb("PNG", "L"), "plain"))
    assert np.array_equal(stored.gray, plain.gray)
    assert (stored.orientation, upright.orientation) == (1, orientation)
    assert upright.size == stored.size == (WIDTH, HEIGHT)
    assert upright.gray.shape == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))
    assert stored_size(path) == (WIDTH, HEIGHT)
    y, x = np.mgrid[: upright.gray.shape[0], : upright.gray.shape[1]]
    back = upright_to_stored(
        torch.tensor(np.stack([x, y], axis=-1)), upright.orientation, upright.size
    )
    assert np.array_equal(stored.gray[back[..., 1], back[..., 0]], upright.gray)


def test_what_is_no_image_has_no_size(tmp_path: Path) -> None:
    for data in (b"", b"text", rgb("TIFF")[:9], rgb("PNG")[:20]):
        assert stored_size(written(tmp_path, data)) is None
    assert stored_size(tmp_path / "gone") is None


def test_unknown_orientations_are_ignored(tmp_path: Path) -> None:
    image = load_image(written(tmp_path, turned("PNG", 9)))
    assert image.orientation == 1


def test_masks_are_false_where_black(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[5:9, 3:7] = 1
    mask[20:, 30:] = 255
    path = written(tmp_path, encode(Image.fromarray(mask), "PNG"))
    assert np.array_equal(read_mask(path), mask > 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "picture"])
def test_masks_are_false_where_all_transparent(tmp_path: Path, kind: str) -> None:
    mask = np.full((HEIGHT, WIDTH, 4), 200, np.uint8)
    mask[:9, :, 3] = 0
    mask[20:, 30:] = (0, 0, 0, 90)
    expected = np.ones((HEIGHT, WIDTH), bool)
    expected[:9] = expected[20:, 30:] = False
    cut_out = Image.fromarray(mask)
    if kind == "picture":
        assert np.array_equal(load_mask(cut_out, "mask0"), expected)
        return
    how = {"lossless": True} if kind == "WEBP" else {}
    path = written(tmp_path, encode(cut_out, kind, **how))
    assert np.array_equal(read_mask(path), expected)


def gray_of(source: object) -> np.ndarray:
    image = load_image(source)  # pyright: ignore[reportArgumentType]
    assert image.size == (image.gray.shape[1], image.gray.shape[0])
    return image.gray


def test_arrays_and_tensors_of_one_picture_are_one_image() -> None:
    array = picture()
    expected = expected_gray()
    half = np.dstack([array, np.full((HEIGHT, WIDTH), 255, np.uint8)])
    channels_first = torch.from_numpy(array).movedim(-1, 0)
    for source in (
        array,
        array[:, ::-1][:, ::-1],
        half,
        array.astype(np.uint16) * 257,
        array / 255,
        (array / 255).astype(np.float32),
        channels_first,
        channels_first / 255,
        channels_first[None],
        torch.from_numpy(half).movedim(-1, 0),
        torch.from_numpy(expected)[None, None],
        torch.from_numpy(expected)[None],
        torch.from_numpy(expected),
        expected[..., None],
    ):
        assert np.abs(gray_of(source) - expected).max() < 0.004
    assert np.abs(gray_of((channels_first / 255).bfloat16()) - expected).max() < 0.01
    assert np.abs(gray_of((array / 255).astype(np.float16)) - expected).max() < 0.01


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "YCbCr", "I;16", "F", "1"])
def test_pictures_of_pillow_look_like_their_files(mode: str, tmp_path: Path) -> None:
    deep = {"I;16": gray16(), "F": gray16().astype(np.float32) / 65535}
    image = Image.fromarray(deep.get(mode, picture()))
    image = image if mode in deep else image.convert(mode)
    kind = "JPEG" if mode == "YCbCr" else "TIFF"
    image.save(tmp_path / "image", kind, **({"quality": 100} if kind == "JPEG" else {}))
    assert np.abs(gray_of(image) - load_image(tmp_path / "image").gray).max() <= 0.02


def test_a_cut_picture_of_pillow_is_refused_and_an_open_one_is_turned_as_its_file(
    tmp_path: Path,
) -> None:
    cut = Image.open(written(tmp_path, rgb("JPEG", quality=95)[:-900]))
    with pytest.raises(ImageError, match="E102 image1: damaged or cut off"):
        load_image(cut, name="image1", allow_truncated=True)
    path = written(tmp_path, turned("PNG", 6))
    for wanted, orientation in ((True, 6), (False, 1)):
        opened = load_image(Image.open(path), apply_exif=wanted)
        from_file = load_image(path, apply_exif=wanted)
        assert np.array_equal(opened.gray, from_file.gray)
        assert opened.size == from_file.size == (WIDTH, HEIGHT)
        assert opened.orientation == from_file.orientation == orientation
    transposed = load_image(ImageOps.exif_transpose(Image.open(path)))
    assert transposed.orientation == 1


def test_a_turned_image_knows_the_way_back(tmp_path: Path) -> None:
    path = written(tmp_path, turned("PNG", 5))
    stored = load_image(path, apply_exif=False)
    for quarters in range(4):
        image = load_image(path).turned(quarters)
        y, x = np.mgrid[: image.gray.shape[0], : image.gray.shape[1]]
        points = torch.tensor(np.stack([x, y], axis=-1))
        back = upright_to_stored(points, image.orientation, image.size)
        assert np.array_equal(stored.gray[back[..., 1], back[..., 0]], image.gray)
        assert np.array_equal(image.gray, np.rot90(load_image(path).gray, quarters))


def test_booleans_are_black_and_white_and_floats_are_stretched() -> None:
    assert gray_of(np.eye(4, dtype=bool)).tolist() == np.eye(4).tolist()
    image = load_image(np.array([[-1.0, 0.0], [1.0, 3.0]]), name="image1")
    assert image.gray.tolist() == [[0, 0.25], [0.5, 1]]
    assert image.warnings == ("values from -1 to 3 stretched to 0 to 1",)
    assert load_image(np.full((2, 2), 7.0)).gray.max() == 0


def test_a_loaded_image_stays_as_it_is() -> None:
    image = LoadedImage(expected_gray(), (WIDTH, HEIGHT))
    assert load_image(image) is image


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (np.zeros((3, 40, 48), np.uint8), 105),
        (np.zeros((40, 48, 2), np.uint8), 105),
        (np.zeros(40, np.uint8), 105),
        (np.zeros((0, 48), np.uint8), 105),
        (np.zeros((40, 48), np.int64), 105),
        (np.zeros((40, 48), complex), 105),
        (np.full((4, 4, 4), 200.0), 105),
        (np.full((4, 4), np.nan), 104),
        (torch.full((1, 4, 4), torch.inf), 104),
        (torch.zeros(40, 48, 3), 105),
        (torch.zeros(2, 1, 40, 48), 105),
        (torch.zeros(1, 40, 48, 3), 105),
        (Image.new("LAB", (4, 4)), 105),
        (torch.zeros(40, 48, dtype=torch.int32), 105),
        (None, 105),
        (3, 105),
    ],
)
def test_what_is_no_image_is_refused_by_name(source: object, code: int) -> None:
    with pytest.raises(ImageError, match=rf"^E{code} image1: "):
        load_image(source, name="image1")  # pyright: ignore[reportArgumentType]


def mutate(data: bytes, random_: random.Random) -> bytes:
    """Change bytes, cut, insert, repeat or clear a stretch."""
    out = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 8, 40))):
        start = random_.randrange(len(out) or 1)
        stretch = slice(start, start + random_.choice((1, 2, 4, 16, 200)))
        kind = random_.randrange(6)
        if kind < 2 and out:
            out[start] = random_.choice((0, 1, 127, 128, 255, random_.randrange(256)))
        elif kind == 2:
            out[stretch] = bytes(len(out[stretch]))
        elif kind == 3:
            out[start:start] = random_.randbytes(random_.choice((1, 4, 30)))
        elif kind == 4:
            out[start:start] = out[stretch]
        elif random_.random() < 0.3:
            del out[stretch]
    return bytes(out)


def survive(count: int, seed: int, folder: Path) -> tuple[int, float]:
    """Read mutated files; returns how many were accepted and the longest seconds of work."""
    seeds = [
        rgb("JPEG"),
        rgb("JPEG", progressive=True),
        rgb("PNG"),
        rgb("TIFF", compression="tiff_lzw"),
        rgb("WEBP"),
        rgb("BMP"),
        rgb("GIF", "P"),
    ]
    random_ = random.Random(seed)
    accepted, longest, codes = 0, 0.0, set()
    path = folder / "mutated"
    for i in range(count):
        path.write_bytes(mutate(seeds[i % len(seeds)], random_))
        started = time.process_time()
        try:
            gray = load_image(path).gray
            assert gray.size
            assert 0 <= gray.min() <= gray.max() <= 1
            accepted += 1
        except ImageError as error:
            codes.add(error.code)
        longest = max(longest, time.process_time() - started)
    assert codes <= {101, 102, 103, 104, 105}
    return accepted, longest


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_or_refused_and_never_crash(tmp_path: Path) -> None:
    accepted, longest = survive(1400, 5, tmp_path)
    assert 0 < accepted < 1400
    assert longest < 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_twenty_thousand_mutated_files_never_crash(tmp_path: Path) -> None:
    accepted, longest = survive(20_000, 6, tmp_path)
    assert 0 < accepted < 20_000
    assert longest < 5


def bombs() -> dict[str, bytes]:
    """Small files that claim or hold far too many pixels."""
    from tests.helpers.image_files import png_header

    black = Image.new("1", (20000, 20000))
    jpeg = bytearray(rgb("JPEG", "L"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 60000, 60000)
    bmp = bytearray(rgb("BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    gif = bytearray(rgb("GIF", "P"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    return {
        "black.png": encode(black, "PNG"),
        "black.tiff": encode(black, "TIFF", compression="group4"),
        "header.png": png_header(2**31 - 1, 2**31 - 1),
        "header.jpg": bytes(jpeg),
        "header.bmp": bytes(bmp),
        "header.gif": bytes(gif),
    }


BOMB_SCRIPT = """
import resource, sys, time
from matcher.errors import ImageError
from matcher.images.load import load_image
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
load_image(sys.argv[1])
before = peak()
for path in sys.argv[2:]:
    started = time.process_time()
    try:
        load_image(path)
    except ImageError as error:
        print(error.code, time.process_time() - started < 2, peak() - before < 200)
"""


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    paths = [written(tmp_path, data, name) for name, data in bombs().items()]
    assert all(path.stat().st_size < 100_000 for path in paths)
    harmless = written(tmp_path, rgb("PNG"), "harmless.png")
    done = subprocess.run(
        [sys.executable, "-c", BOMB_SCRIPT, harmless, *paths],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.splitlines() == ["103 True True"] * len(paths)
