"""What pictures of matches are made of: panels, colors, lines and a legend.

Widths and letters grow with the picture, so that they look alike at any resolution. Colors are
told apart without red and green: blue to yellow for numbers, dashes besides vermilion for
outliers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from matcher.images.preprocess import resize

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
BACKGROUND = (250, 250, 248)
INK = (35, 35, 40)
VERMILION = (225, 85, 0)
PALETTE = np.array([(40, 90, 225), (125, 150, 200), (210, 200, 140), (255, 235, 60)])
"""Lightness rises steadily, and even the dark end is seen on a dark photograph."""
MAX_PANEL = 1600
MIN_PANEL = 720


@dataclass(frozen=True)
class Panel:
    """Where an image lies on a canvas: canvas = (pixel + 0.5) scale + origin - 0.5, (x, y)."""

    origin: tuple[int, int]
    scale: tuple[float, float]
    size: tuple[int, int]
    """(width, height) on the canvas."""

    def place(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) canvas coordinates of (N, 2) pixels of the image."""
        return (points + 0.5) * self.scale + self.origin - 0.5


def as_rgb(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of a (H, W) or (H, W, 1, 3 or 4) uint8 image; ValueError for others."""
    shape = image.shape
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or 0 in shape:
        raise ValueError(f"cannot draw on {image.dtype} of shape {shape}; expected uint8 (H, W, 3)")
    if image.ndim == 2 or shape[2] == 1:
        return np.repeat(image.reshape(shape[0], shape[1], 1), 3, axis=2)
    if shape[2] not in (3, 4):
        raise ValueError(f"cannot draw on {shape[2]} channels; expected 1, 3 or 4")
    return np.ascontiguousarray(image[..., :3])


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A copy of `image` to draw on, `width` x `height` pixels."""
    copy = resize(image, (width, height), enlarging=cv2.INTER_CUBIC)
    return image.copy() if copy is image else copy


def shrunk(image: np.ndarray, scale: float) -> np.ndarray:
    """`image` at `scale` of its size, at least one pixel."""
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return resized(image, width, height)


def frame(image: np.ndarray, scale: float) -> tuple[np.ndarray, Panel]:
    """One image, already at `scale`, on a canvas of its own that is large enough to draw on."""
    sides = image.shape[:2]
    grow = max(1.0, min(MIN_PANEL / min(sides), MAX_PANEL / max(sides)))
    canvas = shrunk(as_rgb(image), grow)
    size = (canvas.shape[1], canvas.shape[0])
    ratio = (scale * size[0] / image.shape[1], scale * size[1] / image.shape[0])
    return canvas, Panel((0, 0), ratio, size)


def arrange(image0: np.ndarray, image1: np.ndarray) -> tuple[np.ndarray, Panel, Panel]:
    """Both images on one canvas: side by side, or one above the other if they are wide."""
    images = [as_rgb(image0), as_rgb(image1)]
    aspects = [image.shape[1] / image.shape[0] for image in images]
    beside = min(aspects) < 1.9
    axis = 0 if beside else 1
    common = max(image.shape[axis] for image in images)
    ratio = max(aspects) if beside else max(1 / a for a in aspects)
    # No panel is longer than MAX_PANEL, and none is too thin to see.
    common = int(np.clip(common, MIN_PANEL, max(8, MAX_PANEL / max(ratio, 1))))
    gap = max(2, common // 120)
    panels, start = [], 0
    for image, aspect in zip(images, aspects, strict=True):
        size = (round(common * aspect), common) if beside else (common, round(common / aspect))
        size = (max(size[0], 1), max(size[1], 1))
        scale = (size[0] / image.shape[1], size[1] / image.shape[0])
        panels.append(Panel((start, 0) if beside else (0, start), scale, size))
        start += size[axis] + gap
    width, height = (start - gap, common) if beside else (common, start - gap)
    canvas = np.full((height, width, 3), BACKGROUND, np.uint8)
    for image, panel in zip(images, panels, strict=True):
        paste(canvas, resized(image, *panel.size), panel)
    return canvas, panels[0], panels[1]


def paste(canvas: np.ndarray, image: np.ndarray, panel: Panel) -> None:
    (x, y), (w, h) = panel.origin, panel.size
    canvas[y : y + h, x : x + w] = image


def unit(canvas: np.ndarray) -> float:
    """The width of a thin line: 1 px on a canvas 1400 px wide."""
    return max(1.0, max(canvas.shape[:2]) / 1400)


def palette(values: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB of values in [0, 1], from blue to yellow."""
    stops = np.linspace(0, 1, len(PALETTE))
    channels = [np.interp(np.clip(values, 0, 1), stops, channel) for channel in PALETTE.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def draw_lines(
    canvas: np.ndarray, starts: np.ndarray, ends: np.ndarray, colors: np.ndarray, width: float
) -> None:
    """Straight lines with a dark edge, drawn in order."""
    thin = max(1, round(width))
    for start, end, color in zip(starts, ends, colors, strict=True):
        for shade, thickness in (((0, 0, 0), 2 * thin), (color.tolist(), thin)):
            cv2.line(canvas, _fixed(start), _fixed(end), shade, thickness, cv2.LINE_AA, 4)


def draw_dashes(
    canvas: np.ndarray, starts: np.ndarray, ends: np.ndarray, color: tuple, width: float
) -> None:
    dash = 9 * width
    for start, end in zip(starts, ends, strict=True):
        length = max(float(np.linalg.norm(end - start)), 1e-6)
        for step in np.arange(0, length, 2 * dash):
            a, b = (start + (end - start) * (s / length) for s in (step, min(step + dash, length)))
            cv2.line(canvas, _fixed(a), _fixed(b), color, max(1, round(width)), cv2.LINE_AA, 4)


def draw_dots(canvas: np.ndarray, points: np.ndarray, colors: np.ndarray, radius: float) -> None:
    for point, color in zip(points, colors, strict=True):
        for shade, reach in (((0, 0, 0), radius + 1), (color.tolist(), radius)):
            cv2.circle(canvas, _fixed(point), round(16 * reach), shade, -1, cv2.LINE_AA, 4)


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Coordinates in sixteenths of a pixel, as OpenCV takes them with shift=4."""
    x, y = np.clip(np.round(point * 16), -(2**24), 2**24).astype(int)
    return int(x), int(y)


@dataclass(frozen=True)
class Legend:
    """The strip below a picture."""

    text: str
    bar: tuple[str, str, str] | None = None
    """Name of the colored number and the labels of its two ends."""
    outliers: int | None = None
    """How many dashed lines there are; None leaves their key out."""
    swatches: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    """Names and colors of areas."""


def letter_size(width: float) -> int:
    """Height in pixels of letters that can be read on a picture of `width` pixels."""
    return round(float(np.clip(width / 62, 14, 64)))


def with_legend(canvas: np.ndarray, legend: Legend, size: int | None = None) -> np.ndarray:
    """The canvas with `legend` below it, the text to the left and the keys to the right, in
    letters of `size` pixels."""
    size = size or letter_size(canvas.shape[1])
    font = ImageFont.load_default(size)
    parts: list[Image.Image] = [_text(legend.text, font)]
    if legend.bar:
        name, low, high = (_text(text, font) for text in legend.bar)
        ramp = np.repeat(palette(np.linspace(0, 1, 9 * size))[None], round(0.8 * size), axis=0)
        parts.append(_beside(name, low, Image.fromarray(ramp), high, gap=size // 2))
    if legend.outliers is not None:
        sample = np.full((size, 3 * size, 3), BACKGROUND, np.uint8)
        left, right = np.array([[0.0, size / 2]]), np.array([[3.0 * size, size / 2]])
        draw_dashes(sample, left, right, VERMILION, size / 9)
        name = _text(f"{legend.outliers} outliers", font)
        parts.append(_beside(Image.fromarray(sample), name, gap=size // 2))
    for name, color in legend.swatches:
        area = Image.new("RGB", (size, size), color)
        parts.append(_beside(area, _text(name, font), gap=size // 2))
    rows = _rows(parts, canvas.shape[1] - 2 * size, 2 * size)
    line = round(1.9 * size)
    strip = Image.new("RGB", (canvas.shape[1], line * len(rows) + size // 2), BACKGROUND)
    for r, row in enumerate(rows):
        x = size
        for part in row:
            strip.paste(part, (x, r * line + size // 4 + (line - part.height) // 2))
            x += part.width + 2 * size
    return np.concatenate([canvas, np.asarray(strip)])


def _rows(parts: list[Image.Image], width: int, gap: int) -> list[list[Image.Image]]:
    rows: list[list[Image.Image]] = [[]]
    for part in parts:
        used = sum(p.width + gap for p in rows[-1])
        if rows[-1] and used + part.width > width:
            rows.append([])
        rows[-1].append(part)
    return rows


def _text(text: str, font: Font) -> Image.Image:
    height = font.getbbox("Ag")[3]
    out = Image.new("RGB", (round(font.getlength(text)) + 1, round(1.15 * height)), BACKGROUND)
    ImageDraw.Draw(out).text((0, 0), text, INK, font)
    return out


def _beside(*parts: Image.Image, gap: int) -> Image.Image:
    height = max(p.height for p in parts)
    width = sum(p.width for p in parts) + gap * (len(parts) - 1)
    out, x = Image.new("RGB", (width, height), BACKGROUND), 0
    for part in parts:
        out.paste(part, (x, (height - part.height) // 2))
        x += part.width + gap
    return out
