"""estimate_pose uses the focal lengths and the centre of K alone: a K that means something else
(skew, another last row, not scaled to 1) must be refused, or give the pose that it stands for."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import cv2
import numpy as np

from matcher.errors import MatcherError
from matcher.geometry.robust import estimate_pose

rng = np.random.default_rng(0)
K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
R = cv2.Rodrigues(np.array([0.1, 0.25, -0.05]))[0]
t = np.array([0.5, 0.3, 0.2]) / np.linalg.norm([0.5, 0.3, 0.2])
points = rng.uniform([-2, -2, 4], [2, 2, 8], (200, 3))


def pixels(K, points):
    projected = points @ K.T
    return projected[:, :2] / projected[:, 2:]


def degrees(cosine):
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def error(K_given):
    moved = points @ R.T + t
    pose = estimate_pose(pixels(K_given, points), pixels(K_given, moved), K0=K_given, K1=K_given)
    if pose is None:
        return 180.0
    turn = degrees((np.trace(pose.rotation.T @ R) - 1) / 2)
    return max(turn, degrees(abs(pose.translation @ t)))


assert error(K) < 0.5
faults = []
skewed, bent = K.copy(), K.copy()
skewed[0, 1], bent[2, 0] = 150, 3e-4
for name, given in {"scaled by 2": 2 * K, "skew": skewed, "last row": bent}.items():
    try:
        off = error(given)
    except (MatcherError, ValueError) as refusal:
        print(name, "refused:", refusal)
        continue
    print(name, f"wrong by {off:.2f} degrees")
    if off > 0.5:
        faults.append(name)
sys.exit(bool(faults))
