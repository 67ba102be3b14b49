"""Files of disparity: PFM, KITTI's 16-bit PNG, NumPy archives.

In arrays 0 means unknown. PFM holds infinity there, as Middlebury does; rows run bottom up in it.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np

from matcher.errors import Code, ImageError, UsageError
from matcher.files import write_atomically
from matcher.images.decode import decode
from matcher.images.encode import encode
from matcher.images.opening import MAX_PIXELS, read_bytes

KITTI_SCALE = 256.0
SUFFIXES = (".pfm", ".png", ".npz")
_PFM_HEADER = re.compile(rb"P([fF])\s+(\d+)\s+(\d+)\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)[ \t\r]*\n")

PathLike = str | os.PathLike[str]


def read_pfm(path: PathLike) -> np.ndarray:
    """(H, W) or (H, W, 3) float32 of a PFM file of either byte order, the top row first.

    Raises:
        UsageError: there is no such file (E111).
        ImageError: not a PFM file (E101), cut off (E102) or too large (E103).
    """
    path = os.fspath(path)
    data = read_bytes(path)
    header = _PFM_HEADER.match(data)
    if header is None:
        raise ImageError(
            Code.UNREADABLE_IMAGE, path, "not a PFM file", "expected Pf or PF, width height, scale"
        )
    kind, width, height, scale = header.groups()
    channels = 3 if kind == b"F" else 1
    count = int(width) * int(height) * channels
    if count == 0 or int(width) * int(height) > MAX_PIXELS:
        raise ImageError(
            Code.LARGE_IMAGE, path, f"{int(width)} x {int(height)} pixels", f"limit {MAX_PIXELS:,}"
        )
    if len(data) - header.end() < 4 * count:
        raise ImageError(Code.DAMAGED_IMAGE, path, "cut off", "fetch it anew")
    order = "<f4" if float(scale) < 0 else ">f4"
    values = np.frombuffer(data, order, count, header.end()).astype(np.float32)
    shape = (int(height), int(width), 3) if channels == 3 else (int(height), int(width))
    return values.reshape(shape)[::-1].copy()


def write_pfm(path: PathLike, values: np.ndarray, *, big_endian: bool = False) -> None:
    """Write (H, W) or (H, W, 3) float32, the top row first, as it is.

    Raises:
        StorageError: it cannot be written (E401).
    """
    kind, scale = "PF" if values.ndim == 3 else "Pf", 1.0 if big_endian else -1.0
    header = f"{kind}\n{values.shape[1]} {values.shape[0]}\n{scale}\n".encode()
    order = ">f4" if big_endian else "<f4"
    write_atomically(os.fspath(path), header + values[::-1].astype(order).tobytes())


def read_kitti(path: PathLike) -> np.ndarray:
    """(H, W) float32 disparity of KITTI's PNG, 0 = unknown.

    Raises:
        UsageError: there is no such file (E111).
        ImageError: unreadable, or not of 16 bits (E105).
    """
    path = os.fspath(path)
    pixels = decode(path, gray=False, apply_exif=False, allow_truncated=False).pixels
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        what = f"{pixels.dtype} of shape {pixels.shape}"
        raise ImageError(
            Code.UNSUPPORTED_IMAGE,
            path,
            what,
            "a disparity in KITTI's form is a gray PNG of 16 bits",
        )
    return pixels.astype(np.float32) / np.float32(KITTI_SCALE)


def write_kitti(path: PathLike, disparity: np.ndarray) -> None:
    """Write (H, W) disparity in steps of 1/256 pixel, 0 = unknown; known ones stay above 0.

    Raises:
        UsageError: a disparity of 256 pixels or more, which the format cannot hold (E201).
        StorageError: it cannot be written (E401).
    """
    largest = float(disparity.max(initial=0))
    if largest * KITTI_SCALE >= 65535.5:
        what = f"a disparity of {largest:.1f} pixels does not fit into 16 bits"
        raise UsageError(Code.INVALID_VALUE, path, what, "write .pfm or .npz")
    steps = np.where(disparity > 0, np.maximum(np.round(disparity * KITTI_SCALE), 1), 0)
    write_atomically(os.fspath(path), encode(steps.astype(np.uint16), ".png"))


def read_disparity(path: PathLike) -> np.ndarray:
    """(H, W) float32 of a .pfm, .png (KITTI) or .npz file, 0 = unknown; signs are dropped, as
    FlyingThings3D's subset stores left disparities below 0."""
    suffix = require_suffix(path)
    if suffix == ".png":
        return read_kitti(path)
    if suffix == ".npz":
        return _read_archive(os.fspath(path))
    values = read_pfm(path)
    values = values[..., 0] if values.ndim == 3 else values
    return np.abs(np.where(np.isfinite(values), values, 0))


def write_disparity(path: PathLike, disparity: np.ndarray, **others: np.ndarray) -> None:
    """Write (H, W) disparity, 0 = unknown, in the format of the suffix; an .npz takes `others`.

    Raises:
        UsageError: another suffix, or values the format cannot hold (E201).
        StorageError: it cannot be written (E401).
    """
    suffix = require_suffix(path)
    if suffix == ".pfm":
        write_pfm(path, np.where(disparity > 0, disparity, np.inf).astype(np.float32))
    elif suffix == ".png":
        write_kitti(path, disparity)
    else:
        buffer = io.BytesIO()
        arrays = {"disparity": disparity, **others}
        np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
        write_atomically(os.fspath(path), buffer.getvalue())


def require_suffix(path: PathLike) -> str:
    """The suffix of a file of disparity."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            Code.INVALID_VALUE, path, f"suffix {suffix!r}", f"expected one of {', '.join(SUFFIXES)}"
        )
    return suffix


def _read_archive(path: str) -> np.ndarray:
    try:
        with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
            return archive["disparity"].astype(np.float32)
    except (ValueError, KeyError, OSError) as error:
        raise ImageError(Code.DAMAGED_IMAGE, path, f"no disparity in it ({error})") from error
