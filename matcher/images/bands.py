"""Bands of TIFF files that Pillow does not read, or reads in eight bits only.

A file with many samples a pixel is one of a single sample with rows as many times as long, and a
file with a plane for each band holds one gray image a plane. So the directory of the file is
written anew, as that of gray images, and Pillow decodes these.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from io import BytesIO
from itertools import product

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from matcher.errors import Code, ImageError
from matcher.validation.checked import invalid

Bands = int | Sequence[int]

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, SAMPLES, ROWS, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
PREDICTOR, TILE_WIDTH, TILE_LENGTH, TILES, TILE_BYTES = 317, 322, 323, 324, 325
EXTRA, FORMAT, NODATA = 338, 339, 42113
COPIED = (COMPRESSION, ROWS, STRIPS, STRIP_BYTES, TILE_LENGTH, TILES, TILE_BYTES)
SHORT = (BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, PREDICTOR, FORMAT)
LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions that do not care how samples are grouped."""
UNSIGNED, SIGNED, FLOATS = 1, 2, 3
"""Formats of samples."""
KINDS = (*product((8, 16, 32), (UNSIGNED, SIGNED)), (32, FLOATS))
"""Bits and formats of samples that are read."""
NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Pillow's unpackers of samples in big-endian order, and those of the order of this machine."""

Tags = Mapping[int, tuple[int, ...]]


def chosen_bands(bands: Bands) -> tuple[int, ...]:
    """One band or three, counted from 1.

    Raises:
        UsageError: other numbers of bands, or no numbers (E201).
    """
    given = bands.tolist() if isinstance(bands, (np.ndarray, np.generic)) else bands
    numbers = tuple(given) if isinstance(given, (Sequence, Set)) else (given,)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in numbers)
    if len(numbers) not in (1, 3) or not whole:
        raise invalid("bands", bands, "one band or three (red, green, blue), counted from 1")
    return numbers


def require_bands(path: str, bands: Sequence[int], count: int) -> None:
    """Refuse bands of which a file does not have so many (E105)."""
    if max(bands) > count:
        what = f"has {count} bands, not {max(bands)}"
        raise ImageError(Code.UNSUPPORTED_IMAGE, path, what, "choose others")


def read_directory(data: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    """The first directory of a TIFF; whatever errors Pillow has for one that is damaged."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])
    file = BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    return directory


def count_bands(directory: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    return first_number(directory, SAMPLES, 1)


def kind_of(directory: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, int]:
    """Bits of a sample, and their format."""
    return first_number(directory, BITS, 1), first_number(directory, FORMAT, UNSIGNED)


def black_if_white_is_zero(directory: TiffImagePlugin.ImageFileDirectory_v2) -> int | None:
    """The value of black in a gray TIFF whose white is zero, of floats up to 1; None of others."""
    bits, kind = kind_of(directory)
    if first_number(directory, PHOTOMETRIC, 1) != 0 or count_bands(directory) != 1:
        return None
    return {UNSIGNED: 2**bits - 1, SIGNED: -1, FLOATS: 1}.get(kind)


def as_tagged(
    pixels: np.ndarray, directory: TiffImagePlugin.ImageFileDirectory_v2, *, turned: bool = False
) -> np.ndarray:
    """Samples (H, W) or (H, W, N) of a TIFF as signed as it says, and gray with white above black,
    if they were not `turned` over while they were decoded."""
    bits, kind = kind_of(directory)
    black = None if turned else black_if_white_is_zero(directory)
    if (bits, kind) in KINDS:
        pixels = pixels.astype(_type(bits, kind), copy=False)
    if black is not None:
        # Floats of 32 bits do not hold the integers of so many.
        pixels = black - (pixels if bits < 32 or kind == FLOATS else pixels.astype(np.float64))
    return pixels


def compression_of(directory: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    return first_number(directory, COMPRESSION, 1)


def nodata_of(
    directory: TiffImagePlugin.ImageFileDirectory_v2, given: float | None
) -> float | None:
    """The value of pixels that hold nothing, once white is above black; in the file it is as
    `given`, or as GDAL wrote it there."""
    if given is None:
        with suppress(KeyError, ValueError):
            given = float(str(directory[NODATA]).strip(" \0"))
    black = black_if_white_is_zero(directory)
    return given if given is None or black is None else black - given


def unused_bands(directory: TiffImagePlugin.ImageFileDirectory_v2, used: int) -> list[str]:
    """A warning where a TIFF has more bands than were read."""
    count = count_bands(directory)
    first = "first is" if used == 1 else f"first {used} are"
    return [f"has {count} bands; the {first} used"] if count > used else []


def own_bands(directory: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[int, ...] | None:
    """Bands of red, green and blue, and of transparency, of more than 8 bits, or that of gray that
    Pillow does not read or not turn over; None for others."""
    kind = kind_of(directory)
    unread = kind == (32, UNSIGNED) and directory.prefix == b"MM" and count_bands(directory) == 1
    if unread or (kind in KINDS[1:] and black_if_white_is_zero(directory) is not None):
        return (1,)
    deep = first_number(directory, BITS, 1) in (16, 32)
    if not deep or first_number(directory, PHOTOMETRIC, 0) != 2:
        return None
    alpha = count_bands(directory) == 4 and first_number(directory, EXTRA, 2) in (1, 2)
    return (1, 2, 3, 4) if alpha else (1, 2, 3)


def select_bands(path: str, data: bytes, bands: Sequence[int], max_pixels: int) -> np.ndarray:
    """(H, W) or (H, W, N) of the chosen bands of a TIFF as stored, not turned, white above black.

    Raises:
        ImageError: no such band, or a kind of TIFF that is not supported (E105); too many pixels
            (E103).
    """
    directory = read_directory(data)
    count = count_bands(directory)
    require_bands(path, bands, count)
    tags = {tag: _numbers(directory, tag) for tag in (*COPIED, WIDTH, LENGTH) if tag in directory}
    width, height = tags[WIDTH][0], tags[LENGTH][0]
    planes = count == 1 or first_number(directory, PLANAR, 1) == 2
    if width * height * (1 if planes else count) > 8 * max_pixels or width * height > max_pixels:
        what = f"{width} x {height} pixels of {count} bands"
        raise ImageError(Code.LARGE_IMAGE, path, what, f"limit {max_pixels:,}; raise max_pixels")
    _require_supported(path, directory, planes)
    bits, kind = kind_of(directory)
    tags |= {
        BITS: (bits,),
        # Pillow reads signed integers of 32 bits in either order of bytes.
        FORMAT: (SIGNED if bits == 32 and kind == UNSIGNED else kind,),
        PHOTOMETRIC: (1,),
        SAMPLES: (1,),
        PLANAR: (1,),
    }
    big = data[:2] == b"MM"
    if planes:
        if TILES in directory:
            tags[TILE_WIDTH] = _numbers(directory, TILE_WIDTH)
        tags[PREDICTOR] = (first_number(directory, PREDICTOR, 1),)
        chosen = [_decoded(data, _plane(tags, band, count), big) for band in bands]
    else:
        chosen = _interleaved(data, directory, tags, bands, big)
    return as_tagged(chosen[0] if len(chosen) == 1 else np.stack(chosen, axis=-1), directory)


def _interleaved(
    data: bytes,
    directory: TiffImagePlugin.ImageFileDirectory_v2,
    tags: dict[int, tuple[int, ...]],
    bands: Sequence[int],
    big: bool,
) -> list[np.ndarray]:
    width, height, count = tags[WIDTH][0], tags[LENGTH][0], count_bands(directory)
    step = width
    if TILES in directory:
        step = first_number(directory, TILE_WIDTH, width)
        tags[TILE_WIDTH] = (step * count,)
    long_rows = _decoded(data, {**tags, WIDTH: (width * count,)}, big)
    pixels = long_rows.reshape(height, width, count)
    chosen = [np.ascontiguousarray(pixels[..., band - 1]) for band in bands]
    if first_number(directory, PREDICTOR, 1) == 2:
        # Each row of a strip or a tile holds differences.
        for band in chosen:
            whole = band.view(f"u{band.itemsize}")
            for start in range(0, width, step):
                part = whole[:, start : start + step]
                np.cumsum(part, axis=1, dtype=whole.dtype, out=part)
    return chosen


def _require_supported(
    path: str, directory: TiffImagePlugin.ImageFileDirectory_v2, planes: bool
) -> None:
    compression = compression_of(directory)
    kinds = {
        (bits, kind)
        for bits in _numbers(directory, BITS)
        for kind in (_numbers(directory, FORMAT) if FORMAT in directory else (UNSIGNED,))
    }
    known = len(kinds) == 1 and kinds <= {*KINDS}
    if known and compression in LOSSLESS and (planes or first_number(directory, PREDICTOR, 1) != 3):
        return
    what = f"bands of kind {sorted(kinds)} (bits, format) with compression {compression}"
    remedy = "supported: 8, 16 and 32 bits, without loss; convert it, as by gdal_translate"
    raise ImageError(Code.UNSUPPORTED_IMAGE, path, f"{what} are not supported", remedy)


def _plane(tags: Tags, band: int, count: int) -> Tags:
    """Tags of one of `count` planes."""
    out = dict(tags)
    for tag in (STRIPS, STRIP_BYTES, TILES, TILE_BYTES):
        if tag in tags:
            each = len(tags[tag]) // count
            out[tag] = tags[tag][(band - 1) * each : band * each]
    return out


def decode_plane(data: bytes, directory: TiffImagePlugin.ImageFileDirectory_v2) -> np.ndarray:
    """(H, W) of a page of one band of 1 or 8 bits, wherever it is in a TIFF, white above black."""
    copied = (*COPIED, WIDTH, LENGTH, TILE_WIDTH, PREDICTOR)
    tags = {tag: _numbers(directory, tag) for tag in copied if tag in directory}
    tags |= {BITS: (first_number(directory, BITS, 1),), PHOTOMETRIC: (1,), SAMPLES: (1,)}
    return _opened(data, tags, data[:2] == b"MM")


def _decoded(data: bytes, tags: Tags, big: bool) -> np.ndarray:
    """(H, W) of a gray TIFF with these tags, of as many bits."""
    return _opened(data, tags, big).astype(_type(tags[BITS][0], tags[FORMAT][0]))


def _opened(data: bytes, tags: Tags, big: bool) -> np.ndarray:
    """(H, W) of a gray TIFF with these tags, as Pillow has it."""
    with Image.open(BytesIO(_with_directory(data, tags, big)), formats=("TIFF",)) as image:
        unpack_natively(image)
        image.load()
        return np.asarray(image)


def _type(bits: int, kind: int) -> str:
    return f"{'uif'[kind - 1]}{bits // 8}"


def unpack_natively(image: ImageFile.ImageFile) -> None:
    """Let Pillow unpack what libtiff gives it, samples in the order of bytes of this machine, as
    such: of most kinds it takes them to be in that of the file."""
    image.tile = [
        tile._replace(args=(NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
        else tile
        for tile in image.tile
    ]


def _with_directory(data: bytes, tags: Tags, big: bool) -> bytes:
    """The file with another directory, at its end."""
    order = ">" if big else "<"
    start = len(data) + len(data) % 2
    entries, extra = b"", b""
    extra_start = start + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        kind, letter = (3, "H") if tag in SHORT else (4, "I")
        values = tags[tag]
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            position = struct.pack(f"{order}I", extra_start + len(extra))
            extra, packed = extra + packed + bytes(len(packed) % 4), position
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}I", start)
    counted = struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0"
    return head + data[8:].ljust(start - 8, b"\0") + counted + extra


def _numbers(directory: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value = directory[tag]
    values = value if isinstance(value, tuple) else (value,)
    return tuple(int(v) for v in values)


def first_number(directory: TiffImagePlugin.ImageFileDirectory_v2, tag: int, default: int) -> int:
    """The first value of a tag of whole numbers, or `default` without it."""
    values = _numbers(directory, tag) if tag in directory else ()
    return values[0] if values else default
