"""Ground truth whose rotation is none (zero, mirrored, scaled, sheared) is refused with its line,
not evaluated."""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import numpy as np

from eval.benchmarks.folder import read_pairs_with_gt
from matcher.errors import MatcherError

K = "300 0 160 0 300 120 0 0 1"
accepted = []
for name, R in {
    "zero": np.zeros((3, 3)),
    "mirrored": np.diag([1, 1, -1.0]),
    "scaled": 2 * np.eye(3),
    "sheared": np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]),
}.items():
    base, T = Path(tempfile.mkdtemp()), np.eye(4)
    T[:3, :3], T[0, 3] = R, 1
    text = f"a.png b.png 0 0 {K} {K} {' '.join(map(str, T.ravel()))}\n"
    (base / "pairs_with_gt.txt").write_text(text)
    try:
        read_pairs_with_gt(base)
        accepted.append(name)
    except MatcherError as error:
        print(name, error)
print("accepted:", accepted)
sys.exit(bool(accepted))
