#!/usr/bin/env bash
# OpenCV: USAC_MAGSAC finds a worse essential matrix when the same rays come in another unit.
#
# Versions: opencv-python-headless 5.0.0.93, numpy 2.4.6 (Python 3.11 to 3.13).
#
# Behavior: cv2.findEssentialMat takes points, a camera matrix and a threshold in the unit of the
# points. Pixels with K = diag(f, f, 1) and a threshold of 1, or rays with K = identity and a
# threshold of 1/f, state the same problem. RANSAC gives the same median error for both to four
# digits. USAC_MAGSAC does not: its error is small only where the unit is about one pixel, and grows
# in both directions (rays, or pixels times 1000) until its lead over RANSAC is gone. In pixels any
# threshold from 0.5 to 4 px serves (0.03 to 0.05 degrees), so the threshold is not what spoils it.
#
# Output seen (median rotation error in degrees and median inliers; 30 scenes, 400 points, f 600,
# 0.5 px of noise, threshold 1 px, wrong = share of random matches):
#   RANSAC       wrong 0.2  rays 0.2364 (282)  pixels 0.2364 (282)  x1000 0.2364 (282)
#   RANSAC       wrong 0.5  rays 0.2637 (178)  pixels 0.2637 (178)  x1000 0.2637 (178)
#   USAC_MAGSAC  wrong 0.2  rays 0.3257 (280)  pixels 0.0396 (306)  x1000 0.3051 (280)
#   USAC_MAGSAC  wrong 0.5  rays 0.2888 (180)  pixels 0.0934 (192)  x1000 0.2448 (184)
#
# For a user: evaluations of matchers often pass normalized rays with K = identity. Changing RANSAC
# to USAC_MAGSAC there makes the poses a little worse and suggests that MAGSAC is of no use.
# Multiply the rays by the focal length (K = diag(f, f, 1), threshold in pixels) first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93
"$work/venv/bin/python" - <<'PY'
import cv2
import numpy as np

FOCAL, POINTS, SCENES = 600.0, 400, 30
UNITS = {"rays": 1 / FOCAL, "pixels": 1.0, "x1000": 1000.0}  # how long one pixel is


def scene(seed, wrong):
    """Two views in pixels from the principal point, and the true rotation."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(4, 8, POINTS)
    across = rng.uniform(-320, 320, POINTS) / FOCAL * depth
    down = rng.uniform(-240, 240, POINTS) / FOCAL * depth
    first = np.stack([across, down, depth], 1)
    rotation = cv2.Rodrigues(rng.normal(0, 0.1, 3))[0]
    step = rng.normal(size=3)
    second = first @ rotation.T + step / np.linalg.norm(step)
    views = [x[:, :2] / x[:, 2:] * FOCAL + rng.normal(0, 0.5, (POINTS, 2)) for x in (first, second)]
    bad = int(POINTS * wrong)
    views[1][:bad] = rng.uniform([-320, -240], [320, 240], (bad, 2))
    return *views, rotation


def solve(seed, wrong, unit, method):
    a, b, truth = scene(seed, wrong)
    camera = np.diag([FOCAL * unit, FOCAL * unit, 1.0])
    essential, mask = cv2.findEssentialMat(
        a * unit, b * unit, camera, method=method, prob=0.99999, threshold=unit, maxIters=10000
    )
    inliers = int(mask.sum())
    _, rotation, _, _ = cv2.recoverPose(essential, a * unit, b * unit, camera, mask=mask)
    cosine = (np.trace(truth.T @ rotation) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))), inliers


error = {}
for name in ("RANSAC", "USAC_MAGSAC"):
    for wrong in (0.2, 0.5):
        line = f"{name:12s} wrong {wrong}"
        for unit, size in UNITS.items():
            runs = [solve(s, wrong, size, getattr(cv2, name)) for s in range(SCENES)]
            error[name, wrong, unit], inliers = np.median(runs, 0)
            line += f"  {unit} {error[name, wrong, unit]:.4f} ({inliers:.0f})"
        print(line)

for wrong, factor in ((0.2, 5), (0.5, 2.2)):
    for unit in ("rays", "x1000"):
        assert abs(error["RANSAC", wrong, unit] - error["RANSAC", wrong, "pixels"]) < 1e-3
        assert error["USAC_MAGSAC", wrong, unit] > factor * error["USAC_MAGSAC", wrong, "pixels"]
    assert error["USAC_MAGSAC", wrong, "pixels"] < 0.5 * error["RANSAC", wrong, "pixels"]
print("as described")
PY
