"""Matches are ordinary tensors: one can compute a loss of parameters of one's own from them, and change them in
place. Class: results carry restrictions of the way they were computed. (accelerated_features 31, rdd 11)"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import cv2
import numpy as np

import matcher

ROOT = Path(matcher.__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def end(good, what):
    print("PASS" if good else "FAIL", what)
    sys.exit(not good)


def views(height=240, width=320):
    """Two gray views (uint8) of one plane, and the homography between them."""
    image = cv2.imread(str(ROOT / "assets" / "demo0.jpg"), cv2.IMREAD_GRAYSCALE)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    moved = corners + np.float32([[6, 4], [-8, 5], [-5, -6], [7, -3]])
    homography = cv2.getPerspectiveTransform(corners, moved)
    return image, cv2.warpPerspective(image, homography, (width, height)), homography


def right(matches, homography):
    """How many matches agree with the homography within 3 px."""
    points0, points1, _ = matches.numpy()
    if not len(points0):
        return 0
    expected = cv2.perspectiveTransform(points0[:, None].astype(np.float64), homography)[:, 0]
    return int((np.linalg.norm(expected - points1, axis=1) < 3).sum())


import torch

image0, image1, _ = views(120, 160)
found = matcher.load_matcher("compact", device="cpu").match(image0, image1)
affine = torch.eye(2, requires_grad=True)
faults = []
try:
    ((found.keypoints0 @ affine - found.keypoints1) ** 2 * found.scores[:, None]).mean().backward()
except RuntimeError as error:
    faults.append(f"backward: {str(error)[:60]}")
try:
    found.keypoints0 += 0.5
except RuntimeError as error:
    faults.append(f"in place: {str(error)[:60]}")
except AttributeError:  # a frozen result is fine
    pass
end(not faults, f"{len(found)} matches; {faults}")
