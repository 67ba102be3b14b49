"""Indices of RGB-D frames that lack a part or do not fit together are errors of one line."""

import io
import os
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import numpy as np

from train import main

base = Path(tempfile.mkdtemp())
kinds = {
    "no_K": {"frame": np.arange(3), "pose": np.tile(np.eye(4), (3, 1, 1))},
    "unlike": {"frame": np.arange(3), "K": np.eye(3), "pose": np.tile(np.eye(4), (5, 1, 1))},
}
faults = []
for name, arrays in kinds.items():
    (base / name).mkdir()
    np.savez(base / name / "cameras.npz", **arrays)
    words = [
        "model=tiny",
        "data=rgbd",
        f"data.files.root={base / name}",
        f"folder={base / name / 'run'}",
        "trainer.max_steps=1",
        "data.workers=0",
    ]
    with redirect_stderr(io.StringIO()) as told:
        code = main(words)
    print(name, code, told.getvalue().strip().splitlines()[-1:])
    if code not in (2, 4) or "Traceback" in told.getvalue():
        faults.append(name)
sys.exit(bool(faults))
