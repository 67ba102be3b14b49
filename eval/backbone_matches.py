"""Matches of backbones alone on real views: python -m eval.backbone_matches [WEIGHTS ...] [key=value ...]

Options: xfeat=FILE (its features beside), pairs=100 of benchmark=views, root=FOLDER, keep=500.
Cells of both images at 1/8, long side 640, that are each other's nearest by the cosine of their
features, before any transformer; the `keep` most alike of a pair. Prints a line a backbone: the
share of them within 8 px of the true epipolar line, and that with shuffled partners (chance).
"""  # noqa: E501

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eval.__main__ import read_options
from eval.benchmarks import load_benchmark
from eval.benchmarks.folder import EvalPair
from eval.benchmarks.sizing import EXACT
from eval.methods.peers import load_peer
from eval.methods.xfeat import CELL, XFeatNet
from matcher.geometry.epipolar import epipolar_error, fundamental_from_pose
from matcher.images.load import load_image
from matcher.images.preprocess import resize
from matcher.terminal.program import program
from matcher.validation.checked import Positive, checked
from matcher.validation.words import options_from_words
from matcher.weights.checkpoint import load_safetensors
from matcher.weights.hub import resolve

NEAR = 8.0
"""Pixels from the epipolar line: a cell."""
SIDE = 640
MULTIPLE = 32
Features = Callable[[Tensor], Tensor]
"""(1, C, H/8, W/8) of a (1, 1, H, W) gray image."""


@checked()
class Options:
    """Which pairs, and whose features stand beside."""

    xfeat: str = ""
    pairs: Positive = 100
    root: str = ""
    keep: Positive = 500


def read(path: Path) -> tuple[Tensor, np.ndarray]:
    """A (1, 1, H, W) gray image, long side `SIDE`, and the (3, 3) map from stored pixels to it."""
    gray = load_image(path, apply_exif=False).gray
    height, width = gray.shape
    scale = SIDE / max(height, width)
    size = tuple(max(round(side * scale / MULTIPLE), 1) * MULTIPLE for side in (width, height))
    image = torch.from_numpy(resize(gray, size))[None, None]
    return image, EXACT.conversion((width, height), size)


def mutual_cells(features0: Tensor, features1: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """(M,) raster indices of cells of two (1, C, h, w) maps that are each other's nearest; the
    `keep` most alike."""
    rows, columns = (F.normalize(x.flatten(2)[0].T) for x in (features0, features1))
    similarity = rows @ columns.T
    score, nearest = similarity.max(dim=1)
    mutual = similarity.argmax(dim=0)[nearest] == torch.arange(len(rows))
    index = mutual.nonzero()[:, 0]
    index = index[score[index].topk(min(keep, len(index))).indices]
    return index, nearest[index]


def centers(index: Tensor, width: int, first: float) -> np.ndarray:
    """(M, 2) pixels of cells of a map `width` wide whose first cell lies at (first, first)."""
    return torch.stack([index % width, index // width], dim=1).double().numpy() * CELL + first


def near_line(pair: EvalPair, features: Features, first: float, keep: int) -> tuple[float, float]:
    """Share of mutual nearest cells near their epipolar lines, and of shuffled ones."""
    if pair.K0 is None or pair.K1 is None or pair.T_0to1 is None:
        raise ValueError(f"{pair.name} has no pose")
    (image0, to0), (image1, to1) = read(pair.image0), read(pair.image1)
    maps = features(image0), features(image1)
    cells = mutual_cells(*maps, keep)
    points0, points1 = (
        centers(index, x.shape[3], first) for index, x in zip(cells, maps, strict=True)
    )
    F_0to1 = fundamental_from_pose(to0 @ pair.K0, to1 @ pair.K1, pair.T_0to1)
    shuffled = np.random.default_rng(0).permutation(len(points1))
    found, chance = (
        float((epipolar_error(points0, other, F_0to1) <= NEAR).mean())
        for other in (points1, points1[shuffled])
    )
    return found, chance


def backbones(weights: list[str], xfeat: str) -> dict[str, tuple[Features, float]]:
    """Features by name, and the pixel of the center of the first cell."""
    found: dict[str, tuple[Features, float]] = {}
    for name in weights:
        model = load_safetensors(resolve(name, offline=True))
        found[name] = (lambda image, model=model: model.extract(image).coarse), 0.0
    if xfeat:
        network = XFeatNet().eval()
        load_peer(network, Path(xfeat))
        found["xfeat"] = network.features, (CELL - 1) / 2
    return found


@program(__doc__, needs_words=True)
@torch.inference_mode()
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    weights = [word for word in words if "=" not in word]
    options = options_from_words(Options, [word for word in words if "=" in word])
    words = ["benchmark=views", *([f"root={options.root}"] if options.root else [])]
    pairs = load_benchmark(
        read_options(words)[0].benchmark, cache=Path(), limit=options.pairs
    ).pairs
    sys.stdout.write(f"near the line, chance: means of {len(pairs)} pairs\n")
    for name, (features, first) in backbones(weights, options.xfeat).items():
        shares = [near_line(pair, features, first, options.keep) for pair in pairs]
        found, chance = np.mean(shares, axis=0)
        sys.stdout.write(f"{found:6.1%} {chance:6.1%}  {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
