"""Rasters in floating point mark what was not seen with a number such as -32768 or
the lowest float32 (GDAL); a strip of it at one side
leaves the matches of the rest, with and without masks that leave it out. Class: one extreme value
decides the contrast of the whole picture. (arosics 11 and 15)"""

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


image0, image1, homography = views()
seen = np.ones(image0.shape, bool)
seen[:, :40] = False
match = matcher.load_matcher("compact", device="cpu").match
float0, float1 = (np.where(seen, each, 128).astype(np.float32) for each in (image0, image1))
usual = right(match(float0, float1, mask0=seen, mask1=seen), homography)
found = {}
for value in (-32768.0, -3.4028235e38):
    float0, float1 = (np.where(seen, each, value).astype(np.float32) for each in (image0, image1))
    found[value] = right(match(float0, float1), homography)
    found[value, "masked"] = right(match(float0, float1, mask0=seen, mask1=seen), homography)
end(min(found.values()) > 0.7 * usual, f"without: {usual} right matches, with it: {found}")
