"""Poses of real pairs whose focal length nobody tells, beside those with the true one.

    python -m benchmarks.focal_length ../shared/eval/strecha RUNS

Matches the pairs of ``pairs_with_gt.txt`` and estimates their pose (`estimate_camera_pose`) with
the true cameras, with a focal length that both images share and nobody knows, and with that of
image 1 alone unknown. RUNS is a folder to work in: pairs that are matched there already are not
matched again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.reconstruction import two_folders
from eval.benchmarks.folder import lines_of
from eval.measure import pose_errors
from eval.metrics import error_auc
from matcher import Matches, load_matcher
from matcher.files import make_folder
from matcher.geometry.cameras import Camera
from matcher.geometry.pose import estimate_camera_pose
from matcher.images.decode import stored_size
from matcher.terminal.program import program

KINDS = ("calibrated", "shared unknown", "image 1 unknown")


def matches_of(images: Path, names: tuple[str, str], runs: Path) -> Matches:
    """Those of a pair, from `runs` where they are."""
    file = runs / f"{Path(names[0]).stem}+{Path(names[1]).stem}.npz"
    if not file.is_file():
        matcher = load_matcher("compact", device="cpu", offline=True)
        matcher.match(*(images / name for name in names)).save(file)
    return Matches.load(file)


def errors(images: Path, columns: list[str], runs: Path) -> list[tuple[float, float]]:
    """For each kind degrees of the pose error and the share by which the focal length is off."""
    names, numbers = (columns[0], columns[1]), np.array(columns[4:], float)
    points = matches_of(images, names, runs).numpy()[:2]
    sizes = [stored_size(images / name) or (1, 1) for name in names]
    true = [Camera.of_matrix(numbers[9 * i : 9 * i + 9].reshape(3, 3), sizes[i]) for i in (0, 1)]
    guess = [Camera.guessed(size) for size in sizes]
    out = []
    for camera0, camera1 in (true, guess, (true[0], guess[1])):
        pose = estimate_camera_pose(*points, camera0=camera0, camera1=camera1)
        if pose is None:
            out.append((np.inf, np.inf))
            continue
        off = np.abs(pose.camera1.focal.mean() / true[1].focal.mean() - 1)
        out.append((max(pose_errors(pose, numbers[18:].reshape(4, 4))), float(off)))
    return out


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    folder, runs = two_folders(words)
    rows = [line.split() for _, line in lines_of(folder / "pairs_with_gt.txt")]
    make_folder(runs)
    found = np.array([errors(folder / "images", row, runs) for row in rows])
    for kind, (error, off) in zip(KINDS, found.transpose(1, 2, 0), strict=True):
        print(
            f"{kind:16} {len(rows)} pairs, pose AUC@5/10 "
            f"{'/'.join(f'{auc:.3f}' for auc in error_auc(error, (5, 10)))}, focal length off by "
            f"{np.median(off):.2%} (median), {np.quantile(off, 0.9):.2%} (90%)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
