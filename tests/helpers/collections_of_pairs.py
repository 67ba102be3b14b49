"""Small runs without a network: a stub whose matches follow from the numbers of the images."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from matcher.batch.fingerprints import ImageFiles
from matcher.batch.manifest import Manifest
from matcher.batch.pairs import PairList
from matcher.batch.run import Run, start_run
from matcher.batch.shards import DUPLICATE, Shard
from matcher.batch.worker import Draft, Task
from matcher.structures import Matches

Outcome = tuple[int, str, str]
"""Exit code, standard output and standard error of a program."""


def write_images(folder: Path, count: int = 5) -> list[str]:
    """Textures of two sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    names = []
    for i in range(count):
        size = (96, 64) if i % 2 else (64, 96)
        small = Image.fromarray(rng.integers(0, 255, (12, 12), dtype=np.uint8))
        names.append(f"im {i}.png")
        small.resize(size, Image.Resampling.BICUBIC).save(folder / names[-1])
    return names


class Stub:
    """Matches of images a and b: (a + b) % 4 of them; (a + b) % 7 == 3 fails with E102."""

    def match(self, task: Task, upcoming: Task | None = None, draft: Draft | None = None) -> Shard:
        return Shard.of(
            [DUPLICATE if same else stub_result(*pair) for pair, same in zip(*task, strict=True)]
        )


def stub_result(a: int, b: int) -> Matches | int:
    if (a + b) % 7 == 3:
        return 102
    points = torch.arange(2 * ((a + b) % 4)).reshape(-1, 2) + float(a)
    return Matches(points, points + float(b), torch.full((len(points),), 0.5))


def stub_pairs(count: int) -> PairList:
    """`count` pairs, each tenth a reversed copy of the one before."""
    pairs = [(f"{i}.jpg", f"{i * 3 % 50}-{i}.jpg") for i in range(count)]
    pairs[9::10] = [pair[::-1] for pair in pairs[8::10]][: len(pairs[9::10])]
    return PairList.of(pairs)


def stub_images(pairs: PairList) -> ImageFiles:
    return ImageFiles(np.ones((len(pairs.names), 32), np.uint8))


def stub_run(folder: Path, count: int = 100, shard_size: int = 8) -> Run:
    pairs = stub_pairs(count)
    images = stub_images(pairs)
    manifest = Manifest.of(pairs, images, shard_size, {"threshold": 0.2})
    return start_run(folder, manifest, pairs, images)


def run_of(folder: Path, results: Mapping[tuple[str, str], Iterable[Sequence[float]]]) -> Run:
    """A finished run with rows (x0, y0, x1, y1, score) for each pair."""
    pairs = PairList.of(results)
    images = stub_images(pairs)
    manifest = Manifest.of(pairs, images, 2, {})
    run = start_run(folder, manifest, pairs, images)
    found = [matches_of(rows) for rows in results.values()]
    for number in range(run.shards):
        run.write(number, Shard.of(found[run.range(number)]))
    return run


def matches_of(rows: Iterable[Sequence[float]]) -> Matches:
    table = torch.tensor(np.array(list(rows)), dtype=torch.float32).reshape(-1, 5)
    return Matches(table[:, :2].clone(), table[:, 2:4].clone(), table[:, 4].clone())
