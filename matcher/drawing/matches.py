"""Pictures of matches: RGB images in, a (H, W, 3) uint8 RGB array out.

`draw_matches` puts the images side by side, `draw_overlay` on top of each other, `draw_coverage`
shows where matches lie, `draw_warp` how well a homography aligns the images.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from matcher.drawing.canvas import (
    MAX_PANEL,
    VERMILION,
    Legend,
    arrange,
    as_rgb,
    draw_dashes,
    draw_dots,
    draw_lines,
    frame,
    palette,
    paste,
    resized,
    shrunk,
    unit,
    with_legend,
)
from matcher.files import write_atomically
from matcher.images.encode import encode
from matcher.results.formats import PICTURE_SUFFIXES
from matcher.structures import Matches
from matcher.validation.checked import invalid

ORANGE, BLUE = (255, 150, 20), (0, 105, 235)


def draw_matches(
    image0: np.ndarray,
    image1: np.ndarray,
    matches: Matches,
    *,
    inliers: np.ndarray | None = None,
    errors: np.ndarray | None = None,
    error_limit: float = 3.0,
    max_lines: int = 200,
) -> np.ndarray:
    """The images side by side with a line for each match, colored by its confidence.

    Args:
        image0, image1: (H, W), (H, W, 3) or (H, W, 4) uint8, RGB, each of any size.
        matches: in pixels of the two images.
        inliers: (N,) or (N, 1), as of OpenCV; the other matches become dashed vermilion lines.
        errors: (N,) such as epipolar errors in pixels, to color by instead of the confidence.
        error_limit: errors from here on share the last color.
        max_lines: at most this many are drawn, the best of every region.
    """
    keypoints0, keypoints1, scores = matches.numpy()
    chosen = spread(keypoints0, scores, max_lines)
    level, ends_of_bar = _levels(scores, errors, error_limit)
    kept = np.ones(len(scores), bool) if inliers is None else np.asarray(inliers, bool).ravel()
    agree, outliers = (None, None) if inliers is None else (int(kept.sum()), int((~kept).sum()))
    legend = Legend(_count(len(scores), len(chosen), agree), ends_of_bar, outliers)
    canvas, panel0, panel1 = arrange(image0, image1)
    starts, ends = panel0.place(keypoints0[chosen]), panel1.place(keypoints1[chosen])
    colors, width, good = palette(level[chosen]), unit(canvas), kept[chosen]
    lines = canvas.copy()
    draw_dashes(lines, starts[~good], ends[~good], VERMILION, width)
    draw_lines(lines, starts[good], ends[good], colors[good], width)
    canvas = cv2.addWeighted(lines, 0.75, canvas, 0.25, 0)
    for points in (starts, ends):
        draw_dots(canvas, points[~good], np.tile(VERMILION, (int((~good).sum()), 1)), 1.6 * width)
        draw_dots(canvas, points[good], colors[good], 2.2 * width)
    return with_legend(canvas, legend)


def draw_overlay(
    image0: np.ndarray, image1: np.ndarray, matches: Matches, *, max_lines: int = 200
) -> np.ndarray:
    """Image 1 laid over image 0, and a line from each keypoint of image 0 to where it went.

    Both keep their own pixel coordinates, so a line is the displacement in pixels; a dot marks
    its end in image 1.
    """
    scale = min(1.0, MAX_PANEL / max(*image0.shape[:2], *image1.shape[:2]))
    images = [shrunk(as_rgb(image), scale) for image in (image0, image1)]
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    both = np.zeros((height, width), np.float32)
    for image in images:
        # Gray leaves color to the lines.
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        both[: gray.shape[0], : gray.shape[1]] += 0.5 * gray
    canvas, panel = frame(both.round().astype(np.uint8), scale)
    keypoints0, keypoints1, scores = matches.numpy()
    chosen = spread(keypoints0, scores, max_lines)
    starts, ends = panel.place(keypoints0[chosen]), panel.place(keypoints1[chosen])
    level, legend = _levels(scores, None, 1.0)
    thin = max(1.0, max(canvas.shape[:2]) / 900)
    draw_lines(canvas, starts, ends, palette(level[chosen]), thin)
    draw_dots(canvas, ends, palette(level[chosen]), 2.2 * thin)
    return with_legend(canvas, Legend(_count(len(scores), len(chosen), None), legend))


def draw_coverage(image0: np.ndarray, image1: np.ndarray, matches: Matches) -> np.ndarray:
    """Both images with the density of matches on top, and the share of the area they reach."""
    canvas, *panels = arrange(image0, image1)
    keypoints = matches.numpy()[:2]
    images = (image0, image1)
    density = [_density(p, image.shape) for p, image in zip(keypoints, images, strict=True)]
    peak = max(float(d.max()) for d in density)
    for panel, image, shares in zip(panels, images, density, strict=True):
        gray = cv2.cvtColor(resized(as_rgb(image), *panel.size), cv2.COLOR_RGB2GRAY)
        level = resized(shares, *panel.size).clip(0) / max(peak, 1e-9)
        # Empty regions stay gray; the color takes over as the density rises.
        weight = (0.8 * np.cbrt(level.clip(0, 1)))[..., None]
        mixed = weight * palette(level) + (1 - weight) * 0.7 * gray[..., None]
        paste(canvas, mixed.round().astype(np.uint8), panel)
    shares = [f"{coverage(p, image.shape):.0%}" for p, image in zip(keypoints, images, strict=True)]
    text = f"{len(matches)} matches reach {shares[0]} and {shares[1]} of the images"
    return with_legend(canvas, Legend(text, ("density", "none", "most")))


def draw_warp(image0: np.ndarray, image1: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Image 1 brought into the frame of image 0 by `homography` (0 to 1), and both mixed.

    The left half is the warped image 1. On the right image 0 is orange and the warped image 1 is
    blue: where they agree the mixture is gray, and an edge that is off has colored fringes.
    """
    first, second = as_rgb(image0), as_rgb(image1)
    scale = min(1.0, MAX_PANEL / max(first.shape[:2]))
    full, first = first.shape, shrunk(first, scale)
    size = (first.shape[1], first.shape[0])
    x, y = full[1] / size[0], full[0] / size[1]
    to_full = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    how = {"dsize": size, "flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    warped = cv2.warpPerspective(second, homography @ to_full, **how)
    everywhere = np.full(second.shape[:2], 255, np.uint8)
    inside = cv2.warpPerspective(everywhere, homography @ to_full, **how)[..., None] / 255
    gray0, gray1 = (
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        for image in (first, warped)
    )
    tint0, tint1 = np.array(ORANGE) / 255, np.array(BLUE) / 255
    mixed = inside * (gray0 * tint0 + gray1 * tint1) + (1 - inside) * 0.4 * gray0
    canvas, *_ = arrange(warped, mixed.round().clip(0, 255).astype(np.uint8))
    swatches = (("image 0", ORANGE), ("image 1", BLUE))
    return with_legend(canvas, Legend("Image 1 warped onto image 0", swatches=swatches))


def spread(keypoints: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` matches, least confident first: the best of every region.

    The region around each keypoint is a cell of a square grid of about `count` cells; cells take
    turns, each giving its best remaining match.
    """
    if len(scores) <= count:
        return np.argsort(scores, kind="stable")
    order = np.argsort(-scores, kind="stable")
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    step = max(float(np.sqrt(np.prod(high - low) / max(count, 1))), 1.0)
    cells = np.floor((keypoints[order] - low) / step).astype(np.int64)
    cell = cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]
    by_cell = np.argsort(cell, kind="stable")
    _, first, counts = np.unique(cell[by_cell], return_index=True, return_counts=True)
    turn = np.empty(len(order), np.int64)
    turn[by_cell] = np.arange(len(order)) - np.repeat(first, counts)
    return order[np.argsort(turn, kind="stable")[:count]][::-1]


def coverage(keypoints: np.ndarray, shape: tuple[int, ...], cells: int = 16) -> float:
    """Share of a `cells` x `cells` grid over an image of `shape` that holds a keypoint."""
    if not len(keypoints):
        return 0.0
    size = np.array([shape[1], shape[0]])
    cell = np.clip(np.floor((keypoints + 0.5) / size * cells), 0, cells - 1).astype(int)
    return len(np.unique(cell[:, 1] * cells + cell[:, 0])) / cells**2


def write_picture(path: Path | str, picture: np.ndarray) -> None:
    """Write an RGB array as PNG, JPEG or WebP, by the suffix, or E201 or E401."""
    path = Path(path)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise invalid("picture", str(path), f"a name ending in {', '.join(PICTURE_SUFFIXES)}")
    write_atomically(path, encode(picture, path.suffix.lower()))


def _levels(
    scores: np.ndarray, errors: np.ndarray | None, limit: float
) -> tuple[np.ndarray, tuple[str, str, str]]:
    """(N,) place on the palette, and what its ends mean; yellow is always the better end."""
    if errors is None:
        return scores, ("confidence", "0", "1")
    return 1 - np.clip(errors / limit, 0, 1), ("error", f"{limit:g} px", "0 px")


def _count(total: int, drawn: int, inliers: int | None) -> str:
    text = "no match" if total == 0 else f"{total} matches" if total > 1 else "1 match"
    if inliers is not None:
        text += f", {inliers} inliers"
    return text if drawn == total else f"{text} ({drawn} drawn)"


def _density(keypoints: np.ndarray, shape: tuple[int, ...], cells: int = 64) -> np.ndarray:
    """Matches per area on a grid whose long side has `cells` cells, smoothed."""
    ratio = cells / max(shape[:2])
    rows, columns = (max(1, round(side * ratio)) for side in shape[:2])
    x, y = (keypoints + 0.5).T
    extent = ((0, shape[0]), (0, shape[1]))
    grid, _, _ = np.histogram2d(y, x, (rows, columns), extent)
    return cv2.GaussianBlur(grid.astype(np.float32), (0, 0), 1.5)
