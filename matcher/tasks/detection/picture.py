"""Pictures of detections: a frame a box, in the color of its class, with name and score."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from matcher.drawing.canvas import INK, Panel, frame, letter_size, unit
from matcher.tasks.detection.structures import Detections

COLORS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233),
          (213, 94, 0), (240, 228, 66))  # fmt: skip
"""Okabe and Ito's, which color-blind people tell apart."""
LIGHT = 140
"""Brightness of a color from which dark letters are read on it."""


def draw_detections(image: np.ndarray, found: Detections) -> np.ndarray:
    """(H', W', 3) uint8: the (H, W, 3) uint8 image with its boxes, the best on top."""
    canvas, panel = frame(image, 1.0)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(letter_size(canvas.shape[1]))
    width = max(2, round(2.5 * unit(canvas)))
    for i in reversed(range(len(found))):
        color = COLORS[int(found.indices[i]) % len(COLORS)]
        text = f"{found.labels[i]} {found.scores[i]:.2f}"
        _draw_box(pen, _placed(panel, found.boxes[i]), text, color, font, width)
    return np.asarray(picture)


def _placed(panel: Panel, box: np.ndarray) -> tuple[float, float, float, float]:
    (x0, y0), (x1, y1) = panel.place(box.reshape(2, 2)).tolist()
    return x0, y0, max(x0, x1), max(y0, y1)


def _draw_box(
    pen: ImageDraw.ImageDraw,
    box: tuple[float, float, float, float],
    text: str,
    color: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    width: int,
) -> None:
    pen.rectangle(box, outline=color, width=width)
    _, _, right, bottom = font.getbbox(text)
    top = box[1] - bottom - width
    top = top if top >= 0 else box[1]
    pen.rectangle((box[0], top, box[0] + right + 2 * width, top + bottom + width), fill=color)
    light = np.dot(color, (0.299, 0.587, 0.114)) > LIGHT
    pen.text((box[0] + width, top), text, fill=INK if light else (255, 255, 255), font=font)
