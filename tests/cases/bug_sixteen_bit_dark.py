"""Files of 16 bits that use a part of the range (cameras of 12 bits, satellites that hold 0 to 3000)
match about as well as the same picture in 8 bits. Class: the range of a picture is taken from its type, not
from what it holds. (COLMAP 90, deep-image-matching 42, ODM 1235)"""

import os
import sys
import tempfile
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
match = matcher.load_matcher("compact", device="cpu").match
usual = right(match(image0, image1), homography)
found = {}
with tempfile.TemporaryDirectory() as folder:
    for name, most in (("12 bits", 4095), ("0 to 3000", 3000)):
        paths = [f"{folder}/{i}.png" for i in range(2)]
        for path, image in zip(paths, (image0, image1), strict=True):
            cv2.imwrite(path, (image.astype(np.float64) * most / 255).astype(np.uint16))
        found[name] = right(match(*paths), homography)
end(min(found.values()) > 0.7 * usual, f"8 bits: {usual} right matches, 16 bits: {found}")
