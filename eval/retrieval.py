"""Which share of the neighbors of an image retrieval finds: python -m eval.retrieval [key=value]

Options: root=FOLDER in SuperGlue's format (default ../shared/eval/strecha), among=10 images are
retrieved for each, weights=NAME, beside=FOLDER of images that are neighbors of none.

Neighbors are counted in two ways. Nearest cameras: the five of the same scene whose centers are
nearest to that of the image, by the poses of the list, which must be metric. Listed pairs: the
other image of every pair of the list; on strecha it holds images at most four numbers apart, which
in Herz-Jesus-P25, whose cameras stand in two rows, leaves out nearer ones.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.benchmarks.folder import EvalPair, read_pairs_with_gt
from matcher.batch.folders import read_folder
from matcher.batch.retrieval import describe
from matcher.predictor import load_matcher
from matcher.terminal.program import program
from matcher.validation.checked import Name, Positive, checked
from matcher.validation.words import options_from_words

NEAREST = 5


@checked()
class Options:
    """What is measured."""

    root: Name = "../shared/eval/strecha"
    among: Positive = 10
    weights: Name = "compact"
    beside: Name | None = None


def recall(
    neighbors: Mapping[int, Sequence[int]], ranked: Mapping[int, Sequence[int]], among: int
) -> float:
    """Share of the neighbors of images that are among the first of their `ranked` ones."""
    found = [len({*ranked[image][:among]} & {*near}) for image, near in neighbors.items()]
    return sum(found) / sum(map(len, neighbors.values()))


def most_similar(descriptors: np.ndarray) -> dict[int, list[int]]:
    """The others of each image, the most similar first."""
    similar = descriptors @ descriptors.T
    np.fill_diagonal(similar, -np.inf)
    return dict(enumerate(np.argsort(-similar, axis=1, kind="stable")[:, :-1].tolist()))


def listed_neighbors(pairs: Sequence[EvalPair], number: Mapping[Path, int]) -> dict[int, list[int]]:
    """The other image of every pair."""
    out: dict[int, list[int]] = {}
    for pair in pairs:
        a, b = number[pair.image0], number[pair.image1]
        out.setdefault(a, []).append(b)
        out.setdefault(b, []).append(a)
    return out


def nearest_cameras(pairs: Sequence[EvalPair], number: Mapping[Path, int]) -> dict[int, list[int]]:
    """The others of the scene of each image, the nearest camera centers first; a scene is what
    pairs connect."""
    poses, scene = _chained(pairs, number)
    centers = {i: -pose[:3, :3].T @ pose[:3, 3] for i, pose in poses.items()}
    out = {}
    for image in poses:
        others = [i for i in poses if scene[i] == scene[image] and i != image]
        others.sort(key=lambda i: float(np.linalg.norm(centers[i] - centers[image])))
        out[image] = others
    return out


def _chained(
    pairs: Sequence[EvalPair], number: Mapping[Path, int]
) -> tuple[dict[int, np.ndarray], dict[int, int]]:
    """(4, 4) pose of each image in the frame of the first of its scene, and that first image."""
    steps: dict[int, list[tuple[int, np.ndarray]]] = {}
    for pair in pairs:
        a, b = number[pair.image0], number[pair.image1]
        if pair.T_0to1 is not None:
            steps.setdefault(a, []).append((b, pair.T_0to1))
            steps.setdefault(b, []).append((a, np.linalg.inv(pair.T_0to1)))
    poses: dict[int, np.ndarray] = {}
    scene: dict[int, int] = {}
    for first in sorted(steps):
        open_ends = [] if first in poses else [first]
        if open_ends:
            poses[first], scene[first] = np.eye(4), first
        while open_ends:
            image = open_ends.pop(0)
            for other, step in steps[image]:
                if other not in poses:
                    poses[other], scene[other] = step @ poses[image], first
                    open_ends.append(other)
    return poses, scene


@program(__doc__)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    options = options_from_words(Options, words)
    pairs = read_pairs_with_gt(Path(options.root))
    paths = list(dict.fromkeys(path for pair in pairs for path in (pair.image0, pair.image1)))
    number = {path: i for i, path in enumerate(paths)}
    others = [] if options.beside is None else read_folder(options.beside).names
    files = [str(path) for path in paths] + [str(Path(options.beside or "") / o) for o in others]
    ranked = most_similar(describe(files, load_matcher(options.weights)))
    cameras = nearest_cameras(pairs, number)
    listed, near = listed_neighbors(pairs, number), {i: o[:NEAREST] for i, o in cameras.items()}
    sys.stdout.write(f"{len(paths)} images of {options.root}, {len(others)} beside them\n")
    for name, neighbors, order in (
        (f"{NEAREST} nearest cameras", near, ranked),
        ("listed pairs", listed, ranked),
        ("listed pairs, by true camera centers", listed, cameras),
    ):
        share = recall(neighbors, order, options.among)
        sys.stdout.write(f"{name:37} recall among {options.among}: {share:.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
