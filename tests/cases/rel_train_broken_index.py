"""Indices of RGB-D frames that lack a part or do not fit together are errors of one line."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

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
        sys.executable,
        "train.py",
        "model=tiny",
        "data=rgbd",
        f"data.files.root={base / name}",
        f"folder={base / name / 'run'}",
        "trainer.max_steps=1",
        "data.workers=0",
    ]
    run = subprocess.run(words, capture_output=True, text=True, timeout=140)
    print(name, run.returncode, run.stderr.strip().splitlines()[-1:])
    if run.returncode not in (2, 4) or "Traceback" in run.stderr:
        faults.append(name)
sys.exit(bool(faults))
