"""Draw the figures of docs/ anew from the demo pair and the bundled weights.

python docs/make_figures.py
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from matcher import load_matcher  # noqa: E402
from matcher.attention_drawing import (  # noqa: E402
    animate_descent,
    draw_attention,
    draw_heads,
    write_animation,
)
from matcher.attention_map import trace_attention  # noqa: E402
from matcher.drawing import draw_coverage, draw_matches  # noqa: E402
from matcher.images import read_rgb  # noqa: E402
from matcher.storage import write_atomically  # noqa: E402

FOLDER = ROOT / "docs" / "images"
POINT = (330, 200)
TOPKS = (16, 8, 8)


def main() -> None:
    paths = ROOT / "assets" / "demo0.jpg", ROOT / "assets" / "demo1.jpg"
    image0, image1 = (read_rgb(path) for path in paths)
    matcher = load_matcher("compact", device="cpu")
    matches = matcher.match(*paths)
    trace = trace_attention(matcher, *paths)
    save("matches.jpg", draw_matches(image0, image1, matches))
    save("coverage.jpg", draw_coverage(image0, image1, matches))
    save("attention.jpg", draw_attention(image0, image1, trace, POINT), width=1500)
    save("heads.jpg", draw_heads(image0, image1, trace, POINT, width=240))
    frames = animate_descent(image0, image1, trace, POINT, head=0, width=220)
    write_animation(FOLDER / "descent.gif", frames)
    draw_cost()


def save(name: str, picture: np.ndarray, width: int = 1000) -> None:
    """A JPEG of at most `width` pixels."""
    scale = min(1.0, width / picture.shape[1])
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    out = BytesIO()
    Image.fromarray(small).save(out, "JPEG", quality=80, optimize=True)
    write_atomically(FOLDER / name, out.getvalue())


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
    figure, axes = plt.subplots(figsize=(6, 3.4))
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


if __name__ == "__main__":
    main()
