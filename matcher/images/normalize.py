"""Pixels of any kind to gray in [0, 1] or to 8-bit RGB, by what the picture holds.

Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, in any order of bytes. Transparency
shows mid-gray, and what is all transparent is not valid.

| type | plain scaling | otherwise |
|---|---|---|
| bool, uint8 | 0 to 255, always | with `stretch`: percentiles where contrast is low |
| uint16 | 0 to 65535 where the picture uses half of it | percentiles |
| int16 | never | percentiles |
| float | 0 to 1 where the picture stays in it | percentiles |

Percentiles are those of pixels that are valid and not masked, so that neither a hot pixel nor a
border decides the contrast. NaN, infinite and nodata pixels are not valid. A single value that
many pixels hold far away from all others is nodata too: rasters mark what was not seen so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from matcher.errors import Code, ImageError

Scaling = Literal["plain", "percentiles", "constant"]

TAIL = 0.1
"""Percent of the pixels that may lie beyond either end of the range."""
DEEP_USE = 0.5
"""Share of its range that a uint16 picture uses at least if it is scaled plainly."""
LOW_CONTRAST = 0.35
"""Share of its range below which `stretch` widens a picture of 8 bits or of floats."""
FAR = 4.0
"""Distance of an unnamed nodata value from all others, in ranges of these."""
SAMPLES = 1_000_000
"""Pixels, evenly spread, from which percentiles are taken."""
MID_GRAY = 128
EXPECTED = "expected uint8, uint16, int16, bool or float of shape (H, W), (H, W, 3) or (H, W, 4)"
INTEGERS = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16))
WHITES = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


@dataclass(frozen=True)
class Normalization:
    """What was done to the values of a picture."""

    how: Scaling = "plain"
    low: float = 0.0
    """The value that became 0."""
    high: float = 1.0
    """The value that became 1."""
    invalid: float = 0.0
    """Share of pixels that are NaN, infinite or nodata."""
    nodata: float | None = None
    """The value that was taken as nodata."""

    def __str__(self) -> str:
        scaled = self.how if self.how == "plain" else f"{self.how}, {self.low:g} to {self.high:g}"
        nodata = "" if self.nodata is None else f", nodata {self.nodata:g}"
        return f"{scaled}{nodata}" + (f", {self.invalid:.2%} masked" if self.invalid else "")

    @property
    def warnings(self) -> list[str]:
        """What a user may want to know."""
        out = []
        if self.how != "plain":
            out.append(f"values from {self.low:g} to {self.high:g} stretched to 0 to 1")
        if self.invalid:
            what = "NaN or infinite"
            if self.nodata is not None:
                what = f"NaN, infinite or nodata ({self.nodata:g})"
            out.append(f"{self.invalid:.2%} of the pixels are {what} and are masked")
        return out


PLAIN = Normalization()


class NormalizedImage(NamedTuple):
    """A picture in [0, 1]."""

    gray: np.ndarray
    """(H, W) float32; what is not valid has the value of the nearest valid pixel"""
    valid: np.ndarray | None
    """(H, W) bool, None where all are"""
    normalization: Normalization
    warnings: list[str]
    """What a user may want to know."""


def to_gray(
    pixels: np.ndarray,
    name: str,
    *,
    allowed: np.ndarray | None = None,
    nodata: float | None = None,
    seen: np.ndarray | None = None,
    stretch: bool = False,
) -> NormalizedImage:
    """A gray picture in [0, 1], by OpenCV's weights of red, green and blue.

    Args:
        pixels: of any kind.
        name: of the picture, for errors.
        allowed: (H, W) bool, the region whose values count; None for all.
        nodata: value of pixels that hold nothing, in all of their bands. Without it, such a value
            is looked for in all but 8-bit pictures and floats in [0, 1].
        seen: (H, W) bool, False where there is nothing; None: where it is all transparent.
        stretch: widen pictures of low contrast, whatever their type.

    Raises:
        ImageError: no valid pixel (E104), or another shape or type (E105).
    """
    color, alpha, warnings = _opaque(pixels, name)
    values, valid = color, None
    if color.ndim == 3:
        values = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
        if nodata is not None:
            valid = ~(color == _as_type(nodata, color.dtype)).all(axis=2)
    seen = _seen(pixels) if seen is None else seen
    if seen is not None:
        allowed = seen if allowed is None else allowed & seen
    valid = _valid(values, valid, nodata if valid is None else None)
    sample = _sample(values, valid, allowed)
    if nodata is None and not _is_plain_type(sample):
        nodata = _unnamed_nodata(sample)
        if nodata is not None:
            valid = _valid(values, valid, nodata)
            sample = sample[sample != nodata]
    if not sample.size or (valid is not None and not valid.any()):
        what = "NaN, infinite or nodata everywhere"
        raise ImageError(Code.INVALID_PIXELS, name, what, "give an image with valid pixels")
    invalid = 0.0 if valid is None else 1.0 - float(valid.mean())
    done = Normalization(*_range(sample, stretch), invalid, nodata)
    gray = _scale(values, done)
    gray = gray if alpha is None else _over_mid_gray(gray, alpha)
    if seen is not None:
        valid = seen if valid is None else valid & seen
    gray = gray if valid is None or not valid.any() else _filled(gray, valid)
    return NormalizedImage(gray, valid, done, done.warnings + warnings)


def to_rgb(pixels: np.ndarray, name: str, *, nodata: float | None = None) -> np.ndarray:
    """(H, W, 3) uint8, scaled as `to_gray` does, with its errors."""
    color, alpha, _ = _opaque(pixels, name)
    if color.dtype != np.uint8:
        unit = _scale(color, to_gray(pixels, name, nodata=nodata).normalization)
        if alpha is not None:
            unit = _over_mid_gray(unit, alpha[..., None])
        color = (unit * np.float32(255)).round().astype(np.uint8)
    return cv2.cvtColor(color, cv2.COLOR_GRAY2RGB) if color.ndim == 2 else color


def _opaque(pixels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """(H, W) or (H, W, 3) contiguous, (H, W) opacity in [0, 1] if it is yet to be applied."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    kind = pixels.dtype.kind
    known = kind in "fb" or pixels.dtype in INTEGERS
    color = pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if not known or not (pixels.ndim == 2 or color) or pixels.size == 0:
        what = f"cannot use {pixels.dtype} of shape {pixels.shape}"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, EXPECTED)
    pixels = np.ascontiguousarray(pixels)
    if kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    elif pixels.dtype == np.float16 or (color and pixels.dtype not in INTEGERS[:2]):
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32)
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return pixels, None, []
    return _split_alpha(pixels, name)


def _split_alpha(pixels: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Transparent pixels over mid-gray where the type says the range; else their opacity."""
    if pixels.dtype == np.uint16:
        alpha = pixels[..., 3].astype(np.float32) / 65535
        color = np.ascontiguousarray(pixels[..., :3])
        return color, alpha, _all_clear(alpha)
    white = 255 if pixels.dtype == np.uint8 else 1
    if not (pixels.min() >= 0 and pixels.max() <= white):
        what = f"RGBA values from {pixels.min():g} to {pixels.max():g}"
        remedy = "floats with transparency must lie from 0 to 1"
        raise ImageError(Code.UNSUPPORTED_IMAGE, name, what, remedy)
    alpha = pixels[..., 3:].astype(np.float32) / white
    mixed = MID_GRAY / 255 * white
    mixed = mixed + (pixels[..., :3].astype(np.float32) - mixed) * alpha
    opaque = (mixed if white == 1 else mixed.round()).astype(pixels.dtype)
    return opaque, None, _all_clear(alpha)


def _seen(pixels: np.ndarray) -> np.ndarray | None:
    """(H, W) bool, False where a picture is all transparent; None where all or nothing is."""
    if pixels.ndim == 2 or pixels.shape[2] != 4:
        return None
    seen = pixels[..., 3] > 0
    return None if seen.all() or not seen.any() else seen


def _all_clear(alpha: np.ndarray) -> list[str]:
    return [] if alpha.any() else ["fully transparent"]


def _over_mid_gray(unit: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Values in [0, 1], of opacity `alpha`, over mid-gray."""
    gray = np.float32(MID_GRAY / 255)
    return gray + (unit - gray) * alpha


def _scale(values: np.ndarray, done: Normalization) -> np.ndarray:
    """Values of the same shape as float32 in [0, 1], as `done` says."""
    low, high = done.low, done.high
    if done.how == "constant":
        return np.zeros(values.shape, np.float32)
    if done.how == "plain" and values.dtype.kind != "f":
        return values.astype(np.float32) / np.float32(high)
    if done.how == "plain":
        # Only a few pixels can lie beyond.
        return np.nan_to_num(values, nan=0.0).clip(0, 1).astype(np.float32)
    # Clipped first, or the lowest float32 as nodata overflows.
    inside = np.nan_to_num(values, nan=low).clip(low, high)
    return ((inside.astype(np.float64) - low) / (high - low)).astype(np.float32)


def _valid(values: np.ndarray, valid: np.ndarray | None, nodata: float | None) -> np.ndarray | None:
    """(H, W) bool of pixels that hold something, None where all do."""
    checks = [] if valid is None else [valid]
    if values.dtype.kind == "f":
        checks.append(np.isfinite(values))
    if nodata is not None and not np.isnan(nodata):
        # GDAL writes the nodata of float32 rasters with more digits than they hold.
        checks.append(values != _as_type(nodata, values.dtype))
    both = np.logical_and.reduce(checks) if checks else None
    return None if both is None or both.all() else both


def _as_type(nodata: float, dtype: np.dtype) -> float:
    """A value that marks what holds nothing, as pixels of that kind would hold it."""
    if dtype.kind != "f":
        return nodata
    with np.errstate(over="ignore"):
        return float(np.asarray(nodata, np.float64).astype(dtype))


def _sample(values: np.ndarray, valid: np.ndarray | None, allowed: np.ndarray | None) -> np.ndarray:
    """(N,) valid values, of the allowed region if it has any."""
    inside = valid
    if allowed is not None:
        inside = allowed if valid is None else allowed & valid
        inside = inside if inside.any() else valid
    chosen = values.ravel() if inside is None else values[inside]
    return chosen[:: max(1, chosen.size // SAMPLES)]


def _is_plain_type(sample: np.ndarray) -> bool:
    """Whether the type says the range: 8 bits, or floats in [0, 1]."""
    if sample.dtype == np.uint8 or not sample.size:
        return True
    return sample.dtype.kind == "f" and sample.min() >= 0 and sample.max() <= 1


def _unnamed_nodata(sample: np.ndarray) -> float | None:
    """A value at either end that many pixels hold, far from all others."""
    for end in (sample.min(), sample.max()):
        held = sample == end
        rest = sample[~held]
        if held.mean() <= TAIL / 100 or not rest.size:
            continue
        low, high = _percentiles(rest)
        distance = abs(float(end) - (low if end < low else high))
        if high > low and distance > FAR * (high - low):
            return float(end)
    return None


def _percentiles(sample: np.ndarray) -> tuple[float, float]:
    """The range without its tails; the whole range where the tails hold all there is."""
    rank = int(sample.size * TAIL / 100)
    ordered = np.partition(sample, (rank, sample.size - 1 - rank))
    low, high = float(ordered[rank]), float(ordered[-1 - rank])
    return (low, high) if high > low else (float(sample.min()), float(sample.max()))


def _range(sample: np.ndarray, stretch: bool) -> tuple[Scaling, float, float]:
    """How to scale, and the values that become 0 and 1."""
    low, high = _percentiles(sample)
    kind = sample.dtype
    white = float(WHITES.get(kind, 1))
    used = (high - low) / white
    in_range = kind == np.uint8 or (kind.kind == "f" and low >= 0 and high <= 1)
    if in_range and not (stretch and 0 < used < LOW_CONTRAST):
        return "plain", 0.0, white
    if kind == np.uint16 and used >= DEEP_USE:
        return "plain", 0.0, white
    return ("percentiles" if 0 < high - low < np.inf else "constant"), low, high


def _filled(gray: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """`gray` with what is not valid as its nearest valid pixel, so that filters see no edge."""
    _, found = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(found, np.int64)
    nearest = np.zeros(int(labels.max()) + 1, np.float32)
    nearest[labels[valid]] = gray[valid]
    return nearest[labels]


def pack_gray(gray: np.ndarray) -> np.ndarray:
    """(H, W) uint8 or uint16 from which `unpack_gray` makes the same bits; else float32 as it is.

    Pictures of 8 and of 16 bits come back; those whose values were stretched stay float32.
    """
    for dtype, white in WHITES.items():
        levels = np.rint(gray * np.float32(white)).astype(dtype)
        if np.array_equal(unpack_gray(levels), gray):
            return levels
    return gray


def unpack_gray(gray: np.ndarray) -> np.ndarray:
    """(H, W) float32 in [0, 1] of a gray image, packed or not."""
    white = WHITES.get(gray.dtype)
    return gray if white is None else gray.astype(np.float32) / np.float32(white)
