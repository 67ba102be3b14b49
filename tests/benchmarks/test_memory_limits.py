"""Ceilings of memory, in processes of their own, and running out of it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from matcher.errors import MemoryLimitError
from matcher.network.model import build_matcher
from matcher.predictor import Predictor
from tests.helpers.models import COMPACT

ROOT = Path(__file__).resolve().parents[2]
MATCH = """
import resource, sys
import numpy as np
from matcher.config import MatcherConfig
from tests.helpers.models import COMPACT
from matcher.network.fuse import fuse
from matcher.network.model import build_matcher
from matcher.predictor import Predictor

name, height, width, max_side = sys.argv[1], *map(int, sys.argv[2:])
model = build_matcher(COMPACT if name == "compact" else MatcherConfig()).eval()
fuse(model)
image = np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)
Predictor(model, max_side=max_side or None).match(image, np.roll(image, 8, axis=1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def peak_gigabytes(name: str, height: int, width: int, max_side: int) -> float:
    """Largest resident size of a process that matches one pair; 0: at full size."""
    words = [name, *map(str, (height, width, max_side))]
    out = subprocess.run(
        [sys.executable, "-c", MATCH, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return float(out.stdout)


def test_a_4k_pair_at_the_default_size_stays_below_3_gb() -> None:
    assert peak_gigabytes("compact", 2160, 3840, 1024) <= 3.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "height", "width", "limit"),
    [
        ("compact", 2048, 2048, 1.5),
        ("published", 2048, 2048, 6.0),
        ("compact", 2160, 3840, 6.0),
    ],
)
def test_a_large_pair_at_full_size_stays_below_its_limit(
    name: str, height: int, width: int, limit: float
) -> None:
    assert peak_gigabytes(name, height, width, 0) <= limit


SITES = (
    "backbone.stem", "backbone.stages.0", "backbone.stages.2", "backbone.output",
    "backbone.merges.1", "position", "transformer.blocks.0.attention", "transformer.blocks.1.mlp",
    "transformer.blocks.3", "fine.reduce_coarse",
)  # fmt: skip


def test_running_out_of_memory_anywhere_is_typed_and_leaks_nothing() -> None:
    predictor = Predictor(build_matcher(COMPACT), device="cpu", threshold=0.0)
    g = np.random.default_rng(0)
    image0, image1 = (g.random((128, 192), dtype=np.float32) for _ in range(2))
    expected = predictor.match(image0, image1)

    def fail(module: object, arguments: object) -> None:
        held_by_frame = torch.ones(2_000_000)  # A leak of the frame would show.
        raise torch.OutOfMemoryError(f"CUDA out of memory ({len(held_by_frame)})")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for site in SITES * 5:
        handle = predictor.model.get_submodule(site).register_forward_pre_hook(fail)
        with pytest.raises(MemoryLimitError, match=r"E131 cpu: out of memory .*192 x 128"):
            predictor.match(image0, image1)
        handle.remove()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3 <= 50
    again = predictor.match(image0, image1)
    assert len(expected) > 0
    assert torch.equal(again.keypoints1, expected.keypoints1)
    assert torch.equal(again.scores, expected.scores)
