"""Pictures of what a matcher looks at: images and an `AttentionTrace` in, RGB arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from matcher.drawing.attention_trace import AttentionTrace, Blocks
from matcher.drawing.canvas import (
    BACKGROUND,
    VERMILION,
    Legend,
    as_rgb,
    draw_dots,
    letter_size,
    palette,
    resized,
    unit,
    with_legend,
)
from matcher.files import write_atomically
from matcher.validation.checked import invalid

GAP = 8
FRAME_MS = 1200
POINT = np.array([(255, 255, 255)])


def draw_blocks(
    image: np.ndarray, blocks: Blocks, *, width: int = 720, most: float | None = None
) -> np.ndarray:
    """Blocks over their image: the yellower, the heavier; vermilion outlines for opened ones.

    Of a (H, W), (H, W, 3) or (H, W, 4) uint8 RGB image of any size, and blocks in its pixels; the
    picture is (height, `width`, 3) uint8 RGB of the same shape. Weights of `most` and above are
    yellow; None: the heaviest of these blocks is.
    """
    canvas, scale = _at_width(image, width)
    gray = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY).astype(np.float32)
    level = np.zeros(canvas.shape[:2], np.float32)
    corners = np.rint((blocks.boxes + 0.5) * np.tile(scale, 2)).astype(int)
    peak = max(_most(blocks) if most is None else most, 1e-12)
    # The root lets the weak blocks be seen beside a very strong one.
    strength = np.sqrt(np.minimum(blocks.scores / peak, 1.0))
    for (x0, y0, x1, y1), score in zip(corners, strength, strict=True):
        level[y0:y1, x0:x1] = score
    weight = (0.85 * np.sqrt(level))[..., None]
    mixed = weight * palette(level)
    mixed += (1 - weight) * 0.6 * gray[..., None]
    picture = mixed.round().astype(np.uint8)
    thick = max(1, round(unit(picture)))
    for x0, y0, x1, y1 in corners[blocks.opened].tolist():
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), VERMILION, thick, cv2.LINE_AA)
    return picture


def draw_point(image: np.ndarray, point: Sequence[float], *, width: int = 720) -> np.ndarray:
    """A ring around (x, y) on an image, `width` pixels wide."""
    canvas, scale = _at_width(image, width)
    place = (np.array([point], float) + 0.5) * scale - 0.5
    x, y = np.rint(place[0]).astype(int).tolist()
    reach = max(8, width // 40)
    for color, thick in (((0, 0, 0), 5), (VERMILION, 3)):
        cv2.circle(canvas, (x, y), reach, color, thick, cv2.LINE_AA)
    draw_dots(canvas, place, POINT, max(2.0, width / 300))
    return canvas


def draw_attention(
    image0: np.ndarray,
    image1: np.ndarray,
    trace: AttentionTrace,
    point: Sequence[float],
    *,
    layer: int = -1,
    head: int | None = None,
    width: int = 480,
) -> np.ndarray:
    """One point in one layer: the levels of the QuadTree above, whole attentions below.

    The first row holds image 0 with the point and the blocks of each level; the second the
    QuadTree message of all levels together, full and linear attention on the same features, and
    the confidence of the match. All weights are on one scale, the confidence on its own from 0
    to 1.

    Args:
        image0, image1: uint8 RGB, as `trace_attention` got them.
        point: (x, y) in pixels of image 0.
        head: None unites the heads.
        width: of one panel in pixels.

    Raises:
        UsageError: no such layer or head, or attention without levels.
    """
    over = (image0, image1)[trace.target(layer)]
    levels = trace.quadtree(point, layer, head)
    whole = {
        "QuadTree": trace.merged(point, layer, head),
        "full": trace.full(point, layer, head),
        "linear": trace.linear(point, layer, head),
    }
    most = _most(*levels, *whole.values())
    first = [(draw_point(image0, point, width=width), "image 0 and the point")]
    for number, blocks in enumerate(levels, start=1):
        text = f"level {number} of {len(levels)}{_opened(blocks)}"
        first.append((draw_blocks(over, blocks, width=width, most=most), text))
    second = [
        (draw_blocks(over, blocks, width=width, most=most), f"{name}, peak {_most(blocks):.2g}")
        for name, blocks in whole.items()
    ]
    match = trace.confidence(point)
    picture = draw_blocks(image1, match, width=width, most=1.0)
    second.append((picture, f"confidence, peak {_most(match):.2g}"))
    who = "all heads" if head is None else f"head {head}"
    text = f"{trace.layer(layer).name} layer {layer % len(trace.layers)}, {who}"
    key = "weight (confidence)", "0", f"{most:.2g} (1)"
    return with_legend(_grid([first, second]), Legend(text, key))


def draw_on_one_scale(
    image0: np.ndarray,
    point: Sequence[float],
    panels: Sequence[tuple[str, np.ndarray, Blocks]],
    *,
    width: int = 300,
) -> np.ndarray:
    """What several attentions weigh for one point: one color is one weight in all of them.

    Args:
        image0: (H, W, 3) uint8 RGB.
        point: (x, y) in its pixels.
        panels: name, image and blocks in its pixels, of each attention.
        width: of one panel in pixels.
    """
    most = max(_most(blocks) for _, _, blocks in panels)
    drawn = [(draw_point(image0, point, width=width), "the point")]
    for name, image, blocks in panels:
        picture = draw_blocks(image, blocks, width=width, most=most)
        drawn.append((picture, f"{name}, peak {_most(blocks):.2g}"))
    rows = [drawn[i : i + 4] for i in range(0, len(drawn), 4)]
    text = "attention of one point on one scale"
    key = "weight", "0", f"{most:.2g}"
    return with_legend(_grid(rows), Legend(text, key))


def draw_heads(
    image0: np.ndarray,
    image1: np.ndarray,
    trace: AttentionTrace,
    point: Sequence[float],
    *,
    width: int = 300,
) -> np.ndarray:
    """QuadTree attention of one point, all levels together: a row a layer, a column a head, all on
    one scale.

    Arguments and errors as `draw_attention`.
    """
    panels = [
        [trace.merged(point, number, head) for head in range(layer.query.shape[0])]
        for number, layer in enumerate(trace.layers)
    ]
    most = _most(*(blocks for row in panels for blocks in row))
    rows = []
    for number, (layer, panel) in enumerate(zip(trace.layers, panels, strict=True)):
        over = (image0, image1)[trace.target(number)]
        pictures = [draw_blocks(over, blocks, width=width, most=most) for blocks in panel]
        names = [f"{layer.name} layer {number}, head {head}" for head in range(len(panel))]
        rows.append(list(zip(pictures, names, strict=True)))
    key = "weight", "0", f"{most:.2g}"
    return with_legend(_grid(rows), Legend("QuadTree attention of one point", key))


def animate_descent(
    image0: np.ndarray,
    image1: np.ndarray,
    trace: AttentionTrace,
    point: Sequence[float],
    *,
    layer: int = -1,
    head: int | None = None,
    width: int = 560,
) -> list[np.ndarray]:
    """Frames that go down the pyramid: the point, each level, and the levels together.

    Arguments and errors as `draw_attention`.
    """
    over = (image0, image1)[trace.target(layer)]
    levels = trace.quadtree(point, layer, head)
    whole = trace.merged(point, layer, head)
    most = _most(*levels, whole)
    pictures = [(_fit(draw_point(image0, point, width=width), over), "the point in image 0")]
    for number, blocks in enumerate(levels):
        name = f"level {number + 1} of {len(levels)}"
        plain = Blocks(blocks.boxes, blocks.scores, np.zeros_like(blocks.opened))
        picture = draw_blocks(over, plain, width=width, most=most)
        pictures.append((picture, f"{name}: {len(blocks)} scored"))
        if blocks.opened.any():
            picture = draw_blocks(over, blocks, width=width, most=most)
            pictures.append((picture, f"{name}{_opened(blocks)}"))
    pictures.append((draw_blocks(over, whole, width=width, most=most), "the levels together"))
    frames = [with_legend(picture, Legend(text)) for picture, text in pictures]
    height = max(len(frame) for frame in frames)
    return [_padded(frame, height, width) for frame in frames]


def write_animation(path: Path | str, frames: Sequence[np.ndarray]) -> None:
    """Write (H, W, 3) uint8 frames of one size as a GIF that repeats, or E201 or E401."""
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise invalid("animation", str(path), "a name ending in .gif")
    # The colors of few pixels, as the yellow of the heaviest block, must stay.
    few = Image.Quantize.FASTOCTREE
    images = [Image.fromarray(frame).quantize(128, method=few) for frame in frames]
    out = BytesIO()
    images[0].save(out, "GIF", append_images=images[1:], duration=FRAME_MS, loop=0, save_all=True)
    write_atomically(path, out.getvalue())


def _most(*panels: Blocks) -> float:
    """The largest weight."""
    return max((float(blocks.scores.max(initial=0.0)) for blocks in panels), default=0.0)


def _at_width(image: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The image at `width`, and its (x, y) scale."""
    rgb = as_rgb(image)
    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    scale = np.array([width / rgb.shape[1], height / rgb.shape[0]])
    return resized(rgb, width, height), scale


def _opened(blocks: Blocks) -> str:
    return f", {int(blocks.opened.sum())} of {len(blocks)} opened" if blocks.opened.any() else ""


def _fit(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`picture` without what makes it higher than `other` at the same width."""
    height = round(other.shape[0] * picture.shape[1] / other.shape[1])
    if picture.shape[0] <= height:
        return picture
    width = round(picture.shape[1] * height / picture.shape[0])
    return _padded(resized(picture, width, height), height, picture.shape[1])


def _padded(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    out = np.full((height, width, 3), BACKGROUND, np.uint8)
    out[: picture.shape[0], : picture.shape[1]] = picture
    return out


def _grid(rows: Sequence[Sequence[tuple[np.ndarray, str]]]) -> np.ndarray:
    """Panels with captions on one sheet; the panels of a row share the height of the highest."""
    panel = rows[0][0][0].shape[1]
    longest = max(len(text) for row in rows for _, text in row)
    size = min(letter_size(0.8 * panel * len(rows[0])), round(2 * panel / (longest + 4)))
    lines = []
    for row in rows:
        panels = [with_legend(picture, Legend(text), size) for picture, text in row]
        height = max(panel.shape[0] for panel in panels) + GAP
        panels = [_padded(p, height, p.shape[1] + GAP) for p in panels]
        lines.append(np.concatenate(panels, axis=1))
    width = max(line.shape[1] for line in lines)
    return np.concatenate([_padded(line, line.shape[0], width) for line in lines])
