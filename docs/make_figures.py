"""Draw the figures of the documentation anew, and measure what its text says about them.

python -m docs.make_figures

Needs the demo pair, the bundled weights, and for one figure ../shared/eval.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image

from conf import plain_options
from matcher import Predictor, load_matcher
from matcher.drawing.attention import (
    animate_descent,
    draw_attention,
    draw_heads,
    write_animation,
)
from matcher.drawing.attention_trace import AttentionTrace, Blocks, trace_attention
from matcher.drawing.matches import draw_coverage, draw_matches
from matcher.files import write_atomically
from matcher.geometry.robust import estimate_fundamental
from matcher.images.load import read_rgb
from matcher.structures import Matches
from matcher.terminal.program import program

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images"
WEIGHTS = ROOT / "matcher" / "weights" / "compact.safetensors"
DEMO = ROOT / "assets" / "demo0.jpg", ROOT / "assets" / "demo1.jpg"
DEMO_PLACE = (330, 200)
REAL_FOLDER = ROOT.parent / "shared" / "eval" / "strecha" / "images"
REAL = REAL_FOLDER / "fountain-P11_0004.jpg", REAL_FOLDER / "fountain-P11_0007.jpg"
REAL_PLACE = (368, 262)
TOPKS = (16, 8, 8)
TURNS = (0, 20, 45, 90, 180)
WARP = np.array([[0.92, -0.12, 60.0], [0.1, 0.95, -20.0], [1e-4, -5e-5, 1.0]])
PRECISIONS = (0.05, 0.1, 0.25, 0.5, 1, 3)
"""Pixels that the axis names."""


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    plain_options(words, {})
    if not REAL_FOLDER.is_dir():
        sys.stderr.write(f"{REAL_FOLDER} is not there: nothing was drawn\n")
        return 1
    matcher = load_matcher("compact", device="cpu")
    images = [read_rgb(path) for path in DEMO]
    matches = matcher.match(*DEMO)
    save(ROOT / "assets" / "demo_matches.jpg", draw_matches(*images, matches), width=1300)
    save(FOLDER / "coverage.jpg", draw_coverage(*images, matches))
    trace, point = trace_attention(matcher, *DEMO), matched_near(DEMO_PLACE, matches)
    save(FOLDER / "attention.jpg", draw_attention(*images, trace, point), width=1500)
    save(FOLDER / "heads.jpg", draw_heads(*images, trace, point, width=240))
    frames = animate_descent(*images, trace, point, head=0, width=360)
    write_animation(FOLDER / "descent.gif", frames)
    draw_cost()
    draw_precision(matcher, images[0])
    real_trace = trace_attention(matcher, *REAL)
    real_point = matched_near(REAL_PLACE, matcher.match(*REAL))
    sketches = [sketch(read_rgb(path)) for path in REAL]
    save(FOLDER / "attention_real.jpg", draw_attention(*sketches, real_trace, real_point), 1400)
    table = attention_table({"demo": (trace, point), "fountain": (real_trace, real_point)})
    write_measured("how_it_works.md", table)
    write_measured("troubleshooting.md", turning_table(matcher, *images))
    return 0


def matched_near(place: tuple[int, int], matches: Matches) -> tuple[float, float]:
    """The confident point of image 0 that is nearest to a place, for figures of any weights."""
    points = matches.above(0.5).numpy()[0]
    x, y = points[np.linalg.norm(points - place, axis=1).argmin()].tolist()
    return x, y


def save(path: Path, picture: np.ndarray, width: int = 1000) -> None:
    """A JPEG of at most `width` pixels."""
    scale = min(1.0, width / picture.shape[1])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    out = BytesIO()
    Image.fromarray(small).save(out, "JPEG", quality=80, optimize=True)
    write_atomically(path, out.getvalue())


def sketch(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8: bright outlines on dark, in place of a photograph that is not ours to show."""
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.2)
    edges = cv2.Canny(gray, 25, 70)
    return cv2.addWeighted(edges, 0.5, np.full_like(edges, 50), 1.0, 0)


def write_measured(page: str, table: str) -> None:
    """Replace what stands between the marks of a page of docs/."""
    path = ROOT / "docs" / page
    digest = sha256(WEIGHTS.read_bytes()).hexdigest()[:8]
    block = f"<!-- measured with the weights {digest} -->\n{table}<!-- end -->"
    marked = r"<!-- measured with the weights \w* -->\n.*?<!-- end -->"
    text, count = re.subn(marked, block, path.read_text(encoding="utf-8"), flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{path}: {count} places for the table, not one")
    write_atomically(path, text.encode())


def attention_table(seen: dict[str, tuple[AttentionTrace, tuple[float, float]]]) -> str:
    """What the last layer looks at from the point of each figure, the mean of its heads."""
    columns = [attention_numbers(*each) for each in seen.values()]
    lines = [
        f"| last layer, mean of its heads | {' | '.join(seen)} |",
        "|---|" + "---:|" * len(seen),
    ]
    lines += [f"| {name} | {' | '.join(c[name] for c in columns)} |" for name in columns[0]]
    return "\n".join(lines) + "\n"


def attention_numbers(trace: AttentionTrace, point: tuple[float, float]) -> dict[str, str]:
    heads = range(trace.layer(-1).query.shape[0])
    scored, held, peaks = [], [], {"full": [], "linear": []}
    for head in heads:
        full, linear = trace.full(point, -1, head), trace.linear(point, -1, head)
        finest = trace.quadtree(point, -1, head)[-1]
        scored.append(len(finest) / len(full))
        held.append(full.scores[np.isin(keys(full), keys(finest))].sum())
        peaks["full"].append(full.scores.max() * len(full))
        peaks["linear"].append(linear.scores.max() * len(linear))
    return {
        "cells that the finest level scores": f"{np.mean(scored):.1%}",
        "share of full attention that lies in them": f"{np.mean(held):.0%}",
        "peak of full attention, in even shares": f"{np.mean(peaks['full']):.0f}",
        "peak of linear attention, in even shares": f"{np.mean(peaks['linear']):.1f}",
        "largest confidence of a match": f"{trace.confidence(point).scores.max():.2f}",
    }


def keys(blocks: Blocks) -> np.ndarray:
    """A number for the lower right corner of each block, alike for the same cells."""
    corners = np.rint(2 * blocks.boxes[:, 2:]).astype(np.int64)
    return corners[:, 0] * 2**20 + corners[:, 1]


def turning_table(matcher: Predictor, image0: np.ndarray, image1: np.ndarray) -> str:
    """Matches and inliers of image 0 and a turned image 1 on a canvas that holds all of it."""
    lines = ["| turned by | matches | inliers of one epipolar geometry |", "|---:|---:|---:|"]
    height, width = image1.shape[:2]
    side = int(np.ceil(np.hypot(height, width)))
    for degrees in TURNS:
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
        turn[:, 2] += (side - width) / 2, (side - height) / 2
        matches = matcher.match(image0, cv2.warpAffine(image1, turn, (side, side)))
        estimate = estimate_fundamental(*matches.numpy()[:2])
        inliers = 0 if estimate is None else int(estimate.inliers.sum())
        lines.append(f"| {degrees}° | {len(matches)} | {inliers} |")
    return "\n".join(lines) + "\n"


def quadtree_scores(width: int, height: int) -> int:
    """Scores of one head and layer with three levels."""
    total = 0
    for level in range(len(TOPKS)):
        side = 8 * 2 ** (len(TOPKS) - 1 - level)
        blocks = width // side * (height // side)
        total += blocks * (blocks if level == 0 else 4 * min(TOPKS[level - 1], blocks))
    return total


def draw_cost() -> None:
    """How many scores attention takes, by the size of the images."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = [(320, 256), (640, 480), (1280, 960), (2560, 1920)]
    megapixels = [w * h / 1e6 for w, h in sizes]
    full = [(w // 8 * (h // 8)) ** 2 for w, h in sizes]
    figure, axes = plt.subplots(figsize=(6, 3.8))
    axes.loglog(megapixels, full, "o-", color="#e15500", label="full attention")
    tree = [quadtree_scores(*size) for size in sizes]
    axes.loglog(megapixels, tree, "s--", color="#285ae1", label="QuadTree, three levels")
    axes.set_xlabel("megapixels of each image")
    axes.set_ylabel("scores of a head and layer")
    axes.legend(frameon=False)
    figure.tight_layout()
    out = BytesIO()
    figure.savefig(out, format="png", dpi=110)
    plt.close(figure)
    write_atomically(FOLDER / "cost.png", out.getvalue())


def draw_precision(matcher: Predictor, image: np.ndarray) -> None:
    """How exact matches are: shares within a distance of the truth, for a warp that is known."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    height, width = image.shape[:2]
    warped = cv2.warpPerspective(image, WARP, (width, height), flags=cv2.INTER_CUBIC)
    placed = Predictor(matcher.model, replace(matcher.options, refine="none"))
    refined = matcher.match(image, warped)
    curves = (
        ("as the network places them", ":", placed.match(image, warped)),
        ("refined", "--", refined),
        ("those that converged", "-", refined.converged_only()),
    )
    figure, axes = plt.subplots(figsize=(6, 3.8))
    for (label, line, matches), color in zip(
        curves, ("#888888", "#285ae1", "#e15500"), strict=True
    ):
        points0, points1, _ = matches.numpy()
        there = cv2.perspectiveTransform(points0[:, None], WARP)[:, 0]
        distance = np.sort(np.linalg.norm(points1 - there, axis=1))
        share = 100 * np.arange(1, len(distance) + 1) / len(distance)
        axes.semilogx(distance, share, line, color=color, label=f"{label}: {len(matches)}")
    axes.set(xlim=(0.02, 10), ylim=(0, 100), xlabel="distance from the truth (px)")
    axes.set_ylabel("matches within (%)")
    axes.set_xticks(PRECISIONS, [f"{pixels:g}" for pixels in PRECISIONS])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0, 1))
    figure.tight_layout()
    out = BytesIO()
    figure.savefig(out, format="png", dpi=110)
    plt.close(figure)
    write_atomically(FOLDER / "precision.png", out.getvalue())


if __name__ == "__main__":
    sys.exit(main())
