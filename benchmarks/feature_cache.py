"""What it saves to run the backbone once per image instead of once per pair.

    python -m benchmarks.feature_cache [images=21] [side=256] [rounds=3]

Matches all pairs of `images` seeded textures with the bundled weights, so that each image is in
`images` - 1 pairs, with the feature cache of collections and without it, in turn. Prints how often
the backbone ran, the least seconds of processor time and their ratio, and whether the matches are
the same bits.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from conf import plain_options
from matcher.batch.feature_cache import ImageFeatures
from matcher.batch.shards import MATCHES, Shard
from matcher.batch.worker import ShardMatcher
from matcher.images.encode import encode
from matcher.predictor import Predictor, load_matcher
from matcher.runtime import warm_allocator
from matcher.terminal.program import program

DEFAULTS = {"images": "21", "side": "256", "rounds": "3"}
CACHE = {"with the cache": 2**32, "without it": 0}


def write_images(folder: Path, count: int, side: int) -> list[str]:
    """Views of one texture, each shifted and turned a little."""
    rng = np.random.default_rng(0)
    texture = np.zeros((2 * side, 2 * side), np.float32)
    for cells in (8, 32, 128):
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        texture += cv2.resize(grid, texture.shape[::-1], interpolation=cv2.INTER_CUBIC)
    texture = (255 * (texture - texture.min()) / np.ptp(texture)).astype(np.uint8)
    paths = []
    for i in range(count):
        turn = cv2.getRotationMatrix2D((side, side), rng.uniform(-10, 10), rng.uniform(0.9, 1.1))
        turn[:, 2] -= side / 2 + rng.uniform(-0.1, 0.1, 2) * side
        paths.append(str(folder / f"{i:03d}.png"))
        view = cv2.warpAffine(texture, turn, (side, side))
        Path(paths[-1]).write_bytes(encode(view, ".png"))
    return paths


def run(predictor: Predictor, paths: list[str], cache_bytes: int) -> tuple[Shard, int, float]:
    """Results of all pairs, runs of the backbone and seconds of the processor."""
    features = ImageFeatures(predictor, paths.__getitem__, cache_bytes=cache_bytes)
    pairs = np.array(list(combinations(range(len(paths)), 2)), np.int32)
    started = time.process_time()
    shard = ShardMatcher(predictor, features, batch_size=4).match(
        (pairs, np.zeros(len(pairs), bool))
    )
    seconds = time.process_time() - started
    features.close()
    return shard, features.extractions, seconds


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    chosen = {name: int(value) for name, value in plain_options(words, DEFAULTS).items()}
    warm_allocator()
    predictor = load_matcher("compact", device="cpu")
    seconds: dict[str, list[float]] = {name: [] for name in CACHE}
    results: dict[str, tuple[Shard, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), chosen["images"], chosen["side"])
        for _ in range(chosen["rounds"]):
            for name, cache_bytes in CACHE.items():
                shard, extractions, spent = run(predictor, paths, cache_bytes)
                results[name] = shard, extractions
                seconds[name].append(spent)
    shards = [results[name][0] for name in CACHE]
    print(f"pairs           {len(shards[0])} of {chosen['images']} images of {chosen['side']} px")
    for name in CACHE:
        print(f"{name:15} {results[name][1]} runs of the backbone, {min(seconds[name]):.2f} s")
    fast, slow = (min(seconds[name]) for name in CACHE)
    same = all((getattr(shards[0], n) == getattr(shards[1], n)).all() for n in ("count", *MATCHES))
    print(f"speed-up        {slow / fast:.2f}")
    print(f"matches         {len(shards[0].scores)}, {'the same' if same else 'DIFFERENT'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
