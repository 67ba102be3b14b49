"""Relative pose of two cameras, whatever is known of them.

Points are undistorted first, so that every estimator sees pinholes. A focal length that is not
known is found from the matches, then the pose with it. PoseLib finds one that both images share
(the six points of Kukelova et al., 2017, in LO-RANSAC); where the other image's is known, or both
differ, it comes out of the fundamental matrix (Kocur et al., CVPR 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib

from matcher.geometry.cameras import Camera
from matcher.geometry.robust import (
    Estimator,
    PoseEstimate,
    estimate_fundamental,
    estimate_pose,
    poselib_options,
)
from matcher.validation.checked import invalid

LEAST = 7
"""Matches for a focal length."""
