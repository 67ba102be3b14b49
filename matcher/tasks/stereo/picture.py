"""Pictures of disparity: a perceptual map with its scale, what is occluded hatched."""

from __future__ import annotations

import numpy as np

from matcher.drawing.canvas import (
    BACKGROUND,
    INK,
    VERMILION,
    Legend,
    Panel,
    arrange,
    palette,
    paste,
    unit,
    with_legend,
)
from matcher.tasks.stereo.predictor import Disparity


def draw_disparity(left: np.ndarray, found: Disparity) -> np.ndarray:
    """The left view beside its disparity, with a legend.

    Args:
        left: (H, W, 3) uint8.
        found: of the same size.

    Returns:
        (H', W', 3) uint8
    """
    low, high = disparity_range(found)
    colors = palette((found.disparity - low).ravel() / max(high - low, 1e-6))
    colors = colors.reshape(*found.disparity.shape, 3)
    canvas, _, second = arrange(left, colors)
    paste(canvas, hatched(_panel(canvas, second), enlarged(found.occluded, second.size)), second)
    share = float(found.occluded.mean())
    legend = Legend(
        f"left view and its disparity, {found.disparity.shape[1]} x {found.disparity.shape[0]}",
        ("disparity", f"{low:.1f} px", f"{high:.1f} px"),
        swatches=((f"hatched: occluded, {share:.0%}", INK),),
    )
    return with_legend(canvas, legend)


def draw_views(left: np.ndarray, right: np.ndarray, lines: int = 12) -> np.ndarray:
    """Both (H, W, 3) uint8 views side by side, with `lines` along rows: the same points lie on
    them in both."""
    canvas, first, _ = arrange(left, right)
    beside = first.size[1] == canvas.shape[0]
    for row in np.linspace(0, first.size[1], lines + 2)[1:-1].astype(int):
        canvas[row] = VERMILION
        if not beside:
            canvas[row + canvas.shape[0] - first.size[1]] = VERMILION
    return canvas


def disparity_range(found: Disparity) -> tuple[float, float]:
    """The disparities between which colors run: all but a hundredth at each end of what both
    views see."""
    seen = found.disparity[~found.occluded]
    if seen.size == 0:
        seen = found.disparity.ravel()
    low, high = np.percentile(seen, (1, 99))
    return float(low), float(high)


def hatched(image: np.ndarray, area: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with slanted lines over the (H, W) bool `area`."""
    y, x = np.indices(area.shape)
    period = max(6, round(10 * unit(image)))
    line = (x + y) % period
    out = image.copy()
    out[area & (line < period // 3)] = INK
    out[area & (line == period // 3)] = BACKGROUND
    return out


def enlarged(area: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: the nearest cell of `area`; `size` is (width, height)."""
    rows = np.arange(size[1]) * area.shape[0] // size[1]
    columns = np.arange(size[0]) * area.shape[1] // size[0]
    return area[rows[:, None], columns]


def _panel(canvas: np.ndarray, panel: Panel) -> np.ndarray:
    (x, y), (w, h) = panel.origin, panel.size
    return canvas[y : y + h, x : x + w]
