"""Image files of every kind, made by hand: what `matcher.images.load` promises about each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 40


class Case(NamedTuple):
    """One file and what reading it gives."""

    name: str
    data: Callable[[], bytes]
    code: int | None = None
    """The error, None if the file is accepted."""
    warning: str = ""
    """Part of the only warning."""


def picture() -> np.ndarray:
    """(H, W, 3) uint8: waves, steps and a little noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 6, (HEIGHT, WIDTH))
    red = 120 + 80 * np.sin(x / 5) + noise
    green = 120 + 80 * np.cos(y / 4) + noise
    blue = 40.0 * ((x // 8 + y // 8) % 5) + noise
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


def gray16() -> np.ndarray:
    """(H, W) uint16: `picture` in gray, at 16 bits."""
    gray = np.asarray(Image.fromarray(picture()).convert("L"))
    return gray.astype(np.uint16) * 257


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """`picture` in `mode` as a file."""
    return encode(Image.fromarray(picture()).convert(mode), kind, **options)


def frames(kind: str, **options: Any) -> bytes:
    """`picture` and two other frames."""
    others = [Image.fromarray(picture()[:, ::-1].copy()), Image.fromarray(255 - picture())]
    return rgb(kind, save_all=True, append_images=others, **options)


def with_alpha(alpha: int | None) -> Image.Image:
    """`picture` of even transparency, or with a ramp of it."""
    image = Image.fromarray(picture()).convert("RGBA")
    ramp = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, axis=0)
    image.putalpha(Image.fromarray(ramp) if alpha is None else alpha)
    return image


def turned(kind: str, orientation: int) -> bytes:
    """`picture` in gray, lossless, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return rgb(kind, "L", exif=exif)


def tiff(
    pixels: np.ndarray,
    sample_format: int,
    photometric: int = 1,
    order: str = "<",
    compression: int = 1,
) -> bytes:
    """An uncompressed TIFF of (H, W, samples), as Pillow would not write it."""
    height, width, samples = pixels.shape
    values = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [pixels.dtype.itemsize * 8] * samples),
        (259, 3, [compression]),
        (262, 3, [photometric]),
        (273, 4, [0]),
        (277, 3, [samples]),
        (278, 4, [height]),
        (279, 4, [pixels.nbytes]),
        (339, 3, [sample_format] * samples),
    ]
    start = 8 + 2 + 12 * len(values) + 4
    extra, directory = b"", struct.pack(f"{order}H", len(values))
    for tag, kind, numbers in values:
        packed = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if tag == 273:
            packed = struct.pack(f"{order}I", start + 4 * samples)
        if len(packed) > 4:
            position = struct.pack(f"{order}I", start + len(extra))
            extra, packed = extra + packed, position
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = (
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(f"{order}I", 8)
        + directory
        + b"\0\0\0\0"
    )
    return (
        head
        + extra.ljust(4 * samples, b"\0")
        + pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    )


def float_tiff(low: float, high: float, spoil: float | None = None) -> bytes:
    values = gray16().astype(np.float32) / 65535 * (high - low) + low
    if spoil is not None:
        values[3, 4] = spoil
    return encode(Image.fromarray(values), "TIFF")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few bytes."""
    return _png(struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"\x78\x9c\x03\x00\x00\x00")


def gray_alpha16(gray: np.ndarray) -> bytes:
    """An opaque PNG of (H, W) uint16 with transparency, which OpenCV and Pillow do not write."""
    rows = np.stack([gray, np.full_like(gray, 65535)], axis=-1).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", *gray.shape[::-1], 16, 4, 0, 0, 0)
    return _png(header, zlib.compress(lines))


def _png(header: bytes, body: bytes) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        out += struct.pack(">I", len(data)) + name + data
        out += struct.pack(">I", zlib.crc32(name + data))
    return out


def damaged_png() -> bytes:
    """One wrong byte in the pixels: only the checksum tells."""
    data = bytearray(rgb("PNG"))
    data[len(data) // 2] ^= 1
    return bytes(data)


def palette(transparency: int | None = None) -> bytes:
    image = Image.fromarray(picture()).quantize(64)
    return encode(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


def integers(kind: str) -> bytes:
    return encode(Image.fromarray(gray16().astype(np.int32) * 1000), kind)


def many_channels() -> bytes:
    return tiff(np.repeat(picture(), 2, axis=2), 1)


def doubles() -> bytes:
    return tiff(gray16()[..., None].astype(np.float64), 3)


FILES = [
    Case("rgb.jpg", lambda: rgb("JPEG", quality=95)),
    Case("gray.jpg", lambda: rgb("JPEG", "L", quality=95)),
    Case("progressive.jpg", lambda: rgb("JPEG", progressive=True, quality=95)),
    Case("full_chroma.jpeg", lambda: rgb("JPEG", subsampling=0, quality=95)),
    Case("cmyk.jpg", lambda: rgb("JPEG", "CMYK", quality=95)),
    Case("phone.jpg", lambda: frames("MPO", quality=95)),
    Case("turned.jpg", lambda: turned("JPEG", 6)),
    Case("jpeg.png", lambda: rgb("JPEG"), warning="is JPEG, not PNG"),
    Case("no_suffix", lambda: rgb("JPEG")),
    Case("upper.PNG", lambda: rgb("PNG")),
    Case("gray.png", lambda: rgb("PNG", "L")),
    Case("gray16.png", lambda: encode(Image.fromarray(gray16()), "PNG")),
    Case("rgba.png", lambda: encode(with_alpha(None), "PNG")),
    Case("opaque.png", lambda: encode(with_alpha(255), "PNG")),
    Case("invisible.png", lambda: encode(with_alpha(0), "PNG"), warning="fully transparent"),
    Case("gray_alpha.png", lambda: encode(with_alpha(None).convert("LA"), "PNG")),
    Case("palette.png", palette),
    Case("palette_clear.png", lambda: palette(3)),
    Case("gray_clear.png", lambda: rgb("PNG", "L", transparency=7)),
    Case("one_bit.png", lambda: rgb("PNG", "1")),
    Case("animated.png", lambda: frames("PNG"), warning="3 frames"),
    Case("turned.png", lambda: turned("PNG", 5)),
    Case("rgb.tif", lambda: rgb("TIFF")),
    Case("lzw.tiff", lambda: rgb("TIFF", compression="tiff_lzw")),
    Case("deflate.tiff", lambda: rgb("TIFF", compression="tiff_adobe_deflate")),
    Case("fax.tiff", lambda: rgb("TIFF", "1", compression="group4")),
    Case("cmyk.tiff", lambda: rgb("TIFF", "CMYK")),
    Case("gray16.tiff", lambda: encode(Image.fromarray(gray16()), "TIFF")),
    Case("gray16_big_endian.tiff", lambda: tiff(gray16()[..., None], 1, order=">")),
    Case("integers.tiff", lambda: integers("TIFF"), warning="stretched"),
    Case("unit_float.tiff", lambda: float_tiff(0, 1)),
    Case("large_float.tiff", lambda: float_tiff(-5, 900), warning="stretched"),
    Case("pages.tiff", lambda: frames("TIFF"), warning="3 frames"),
    Case("turned.tiff", lambda: turned("TIFF", 8)),
    Case("lossy.webp", lambda: rgb("WEBP", quality=95)),
    Case("lossless.webp", lambda: rgb("WEBP", lossless=True)),
    Case("rgba.webp", lambda: encode(with_alpha(None), "WEBP", lossless=True)),
    Case("animated.webp", lambda: frames("WEBP", lossless=True), warning="3 frames"),
    Case("rgb.bmp", lambda: rgb("BMP")),
    Case("one_bit.bmp", lambda: rgb("BMP", "1")),
    Case("still.gif", lambda: rgb("GIF", "P")),
    Case("animated.gif", lambda: frames("GIF"), warning="3 frames"),
    Case("rgb.ppm", lambda: rgb("PPM")),
    Case("gray16.pgm", lambda: encode(Image.fromarray(gray16().astype(np.int32)), "PPM")),
    Case("empty.jpg", lambda: b"", 101),
    Case("text.jpg", lambda: b"hello\n" * 40, 101),
    Case("page.jpg", lambda: b"\n<!DOCTYPE html><html>404</html>", 101),
    Case("lfs.png", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", 101),
    Case("drawing.svg", lambda: b"<svg xmlns='x'/>", 101),
    Case("paper.pdf", lambda: b"%PDF-1.7\n\xe2\xe3\xcf\xd3\n" + bytes(200), 101),
    Case("noise.png", lambda: np.random.default_rng(1).bytes(500), 101),
    Case("header.jpg", lambda: rgb("JPEG")[:20], 102),
    Case("header.png", lambda: rgb("PNG")[:20], 102),
    Case("checksum.png", damaged_png, 102),
    Case("no_pixels.bmp", lambda: rgb("BMP")[:60], 102),
    Case("cut.tiff", lambda: rgb("TIFF", compression="tiff_lzw")[:-400], 102),
    Case("cut.ppm", lambda: rgb("PPM")[:-1], 102),
    Case("huge.png", lambda: png_header(60000, 60000), 103),
    Case("nan.tiff", lambda: float_tiff(0, 1, np.nan), warning="are masked"),
    Case("infinite.tiff", lambda: float_tiff(0, 1, np.inf), warning="are masked"),
    Case("doubles.tiff", doubles, 105),
    Case("many_channels.tiff", many_channels, 105),
    Case("lerc.tiff", lambda: tiff(gray16()[..., None], 1, compression=34887), 105),
    Case("lab.tiff", lambda: tiff(picture(), 1, photometric=8), 105),
]
