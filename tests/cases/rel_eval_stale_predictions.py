"""An image of a benchmark is replaced by another of the same size in bytes: the evaluation must
not answer with predictions made from the old one."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import numpy as np
from PIL import Image

from eval.__main__ import main

base = Path(tempfile.mkdtemp())
(base / "images").mkdir()
picture = np.array(Image.open("assets/demo0.jpg").convert("RGB").resize((320, 240)))


def ppm(name, pixels):
    (base / "images" / name).write_bytes(b"P6 320 240 255\n" + pixels.tobytes())


ppm("a.ppm", picture)
ppm("b.ppm", np.roll(picture, 6, 1))
K = "300 0 160 0 300 120 0 0 1"
(base / "pairs_with_gt.txt").write_text(
    f"a.ppm b.ppm 0 0 {K} {K} 1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1\n"
)
words = [
    "benchmark=pairs",
    f"root={base}",
    f"output={base}/out",
    "method=rootsift",
    "report=false",
    "bootstrap=0",
]


def matches():
    assert main(words) == 0
    rows = (base / "out" / "pairs.csv").read_text().splitlines()
    return dict(zip(rows[0].split(","), rows[1].split(","), strict=True))["matches"]


before = matches()
ppm("b.ppm", np.random.default_rng(0).integers(0, 255, picture.shape, np.uint8))
after = matches()
print("matches before", before, "and of an image of noise", after)
sys.exit(after == before)
