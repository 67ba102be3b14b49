"""A panorama or line-scan strip of 64 x 4096 pixels (fewer pixels than 640 x 480) with the default size limit
matches, or says why not. Class: the limit looks at the longer side alone and shrinks the shorter one away.
(arosics 21, LightGlue 48, LoFTR 247)"""

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


image = cv2.imread(str(ROOT / "assets" / "demo0.jpg"), cv2.IMREAD_GRAYSCALE)
rows = [cv2.resize(image[i : i + 64], (600, 64)) for i in range(0, image.shape[0] - 64, 48)]
strip = np.concatenate(rows, axis=1)
strip = np.concatenate([strip, strip[:, ::-1]], axis=1)[:, :4256]
strip0, strip1 = strip[:, :4096], strip[:, 160:4256]
shift = np.array([[1.0, 0, -160], [0, 1, 0], [0, 0, 1]])
found = matcher.load_matcher("compact", device="cpu").match(strip0, strip1)
good = right(found, shift)
end(
    good > 100 or found.reason,
    f"{strip0.shape}: {good} right of {len(found)} matches, reason {found.reason!r}",
)
