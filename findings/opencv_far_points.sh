#!/usr/bin/env bash
# OpenCV: the 1e9 that lifts recoverPose's limit on depth is taken for something else, and ignored.
#
# Versions: opencv-python-headless 5.0.0.93 (4.13.0.92 gives the same figures), numpy 2.4.6.
#
# Behavior: when cv2.recoverPose chooses among the four poses of an essential matrix, it leaves out
# points farther than 50 steps of the camera. An overload takes distanceThresh after the camera
# matrix, and evaluations of matchers call recoverPose(E, a, b, K, 1e9, mask=mask) to lift the
# limit. But the shorter overload, tried first, has its output R in that place and takes any number
# for it: the call is valid, four values come back as from the shorter one, and the limit stays at
# 50. Only by its name, distanceThresh=1e9, does the number arrive; five values come back. Where all
# points are farther than 50 steps, those counted are the few that noise brings near. Where none
# counts, the first of the four poses is returned, right or wrong.
#
# Output seen (20 scenes of 400 points, 0.2 px of noise, a fifth of the matches wrong, focal length
# 600; median inliers, and scenes whose rotation is more than 90 degrees off):
#   depth in steps   no limit given   1e9 as fifth argument   distanceThresh=1e9
#     5 to  10        320   0 off        320   0 off              320   0 off
#    30 to  60        286   0 off        286   0 off              319   0 off
#   100 to 200          2   3 off          2   3 off              318   0 off
#   200 to 400          2   3 off          2   3 off              278   0 off
#
# For a user: neighboring frames of a video, views from the air and distant buildings have such
# depths. Right pairs lose nearly all their inliers and are rejected, or their rotation is wrong by
# 180 degrees, though matches and essential matrix are right and the code that is to prevent it
# seems to be there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 opencv-python-headless==5.0.0.93
"$work/venv/bin/python" - <<'PY'
import cv2
import numpy as np

SCENES, POINTS, WRONG, NOISE = 20, 400, 80, 0.2
SIZE = (640, 480)
CAMERA = np.array([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]])


def scene(seed, nearest):
    """Matches in pixels of both images, and the true rotation; the step has length 1."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(nearest, 2 * nearest, POINTS)
    rays = np.c_[rng.uniform(-0.45, 0.45, POINTS), rng.uniform(-0.35, 0.35, POINTS)]
    points = np.c_[rays, np.ones(POINTS)] * depth[:, None]
    rotation = cv2.Rodrigues(rng.normal(0, 0.05, 3))[0]
    step = rng.normal(size=3)
    views = []
    for seen in (points, points @ rotation.T + step / np.linalg.norm(step)):
        pixels = seen @ CAMERA.T
        views.append(pixels[:, :2] / pixels[:, 2:] + rng.normal(0, NOISE, (POINTS, 2)))
    views[1][:WRONG] = rng.uniform((0, 0), SIZE, (WRONG, 2))
    return *views, rotation


def solve(seed, nearest):
    """(3, 2) inliers and whether the rotation is far off: no limit given, fifth, by name."""
    first, second, truth = scene(seed, nearest)
    essential, mask = cv2.findEssentialMat(first, second, CAMERA, cv2.RANSAC, 0.9999, 1.0)
    given = essential, first, second, CAMERA
    none = cv2.recoverPose(*given, mask=mask.copy())
    fifth = cv2.recoverPose(*given, 1e9, mask=mask.copy())
    named = cv2.recoverPose(*given, distanceThresh=1e9, mask=mask.copy())
    assert [len(found) for found in (none, fifth, named)] == [4, 4, 5]
    assert all(np.array_equal(a, b) for a, b in zip(none, fifth))
    # A trace below 1 is a rotation of more than 90 degrees.
    return [(count, np.trace(truth.T @ R) < 1) for count, R, *_ in (none, fifth, named)]


print(f"OpenCV {cv2.__version__}")
for nearest in (5, 30, 100, 200):
    runs = np.array([solve(seed, nearest) for seed in range(SCENES)])
    inliers, off = np.median(runs[..., 0], axis=0), runs[..., 1].sum(axis=0)
    line = "".join(f"      {a:3.0f}  {b:2d} off" for a, b in zip(inliers, off))
    print(f"{nearest:3d} to {2 * nearest:3d}{line}")
    assert inliers[2] > 250 and off[2] == 0
    if nearest >= 100:
        assert inliers[0] < 20 and off[0] >= 1
print("as described")
PY
