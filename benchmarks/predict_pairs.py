"""Predictions of the bundled weights, by public names alone, so that any commit can make them.

    PYTHONPATH=TREE python -P benchmarks/predict_pairs.py LIST FOLDER

LIST is a JSON list of pairs of image files; FOLDER receives ``000000.npz`` and so on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from matcher import load_matcher


def main(pairs: Path, folder: Path) -> None:
    """Match every pair on the CPU and save keypoints in pixels and scores."""
    matcher = load_matcher("compact", device="cpu")
    for index, paths in enumerate(json.loads(pairs.read_text(encoding="utf-8"))):
        matches = matcher.match(*paths)
        np.savez(
            folder / f"{index:06d}.npz",
            keypoints0=np.asarray(matches.keypoints0),
            keypoints1=np.asarray(matches.keypoints1),
            scores=np.asarray(matches.scores),
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
