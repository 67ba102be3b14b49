#!/usr/bin/env bash
# PoseLib and COLMAP: cameras of 11 of COLMAP's 18 models get the identity pose, without an error.
#
# Versions: poselib 2.0.5, pycolmap 4.2.1, numpy 2.4.6 (Python 3.11 to 3.13).
#
# Behavior: PoseLib names its camera models as COLMAP does and takes a camera as a dictionary of
# model, width, height and params, which are fields of a pycolmap camera. It knows seven of the
# models. For any other name it neither raises nor warns: it does all its iterations (the limit is
# 100000) and returns the identity rotation with a zero translation and no inliers, for absolute and
# for relative pose alike. The points here are exact projections by pycolmap itself.
#
# Output seen (inliers of 200 for absolute and relative pose, iterations, rotation error):
#   SIMPLE_PINHOLE              absolute 200  relative 200  iterations   1001  error  0.0 deg
#   PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV, OPENCV_FISHEYE, FULL_OPENCV: as SIMPLE_PINHOLE
#   SIMPLE_RADIAL_FISHEYE       absolute   0  relative   0  iterations 100000  error 21.4 deg
#   RADIAL_FISHEYE, FOV, THIN_PRISM_FISHEYE, RAD_TAN_THIN_PRISM_FISHEYE, SIMPLE_DIVISION, DIVISION,
#   SIMPLE_FISHEYE, FISHEYE, EUCM, EQUIRECTANGULAR: as SIMPLE_RADIAL_FISHEYE
#
# For a user: with cameras read from a COLMAP model, such images look like failures of the matcher,
# and where rotations are small the identity even counts as a fair answer in a table of pose errors.
# Check the name of the model first, or turn points into rays with pycolmap's cam_from_img and give
# PoseLib a pinhole camera.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 poselib==2.0.5 pycolmap==4.2.1
"$work/venv/bin/python" - <<'PY'
import numpy as np
import poselib
import pycolmap

KNOWN = {
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
}
rng = np.random.default_rng(0)
points = np.c_[rng.uniform(-1.5, 1.5, (200, 2)), rng.uniform(4, 8, 200)]
truth = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([0.1, 0.2, 0.3])), np.array([0.1, 0.2, 0.3]))


def angle(pose):
    cosine = (np.trace(truth.rotation.matrix().T @ pose.R) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


found, lost = set(), set()
for name in sorted(set(pycolmap.CameraModelId.__members__) - {"INVALID"}):
    camera = pycolmap.Camera.create_from_model_name(1, name, 600.0, 640, 480)
    first, second = camera.img_from_cam(points), camera.img_from_cam(truth * points)
    given = {
        "model": camera.model.name,
        "width": camera.width,
        "height": camera.height,
        "params": list(camera.params),
    }
    absolute, a = poselib.estimate_absolute_pose(
        second, points, given, {"max_reproj_error": 1.0}, {}
    )
    relative, r = poselib.estimate_relative_pose(
        first, second, given, given, {"max_epipolar_error": 1.0}, {}
    )
    error = max(angle(absolute), angle(relative))
    print(
        f"{name:27s} absolute {a['num_inliers']:3d}  relative {r['num_inliers']:3d}  "
        f"iterations {r['iterations']:6d}  error {error:4.1f} deg"
    )
    if a["num_inliers"] == r["num_inliers"] == 200 and error < 0.01:
        found.add(name)
    elif a["num_inliers"] == r["num_inliers"] == 0:
        for pose in (absolute, relative):
            assert np.array_equal(pose.R, np.eye(3)) and not np.any(pose.t)
        lost.add(name)

assert found == KNOWN, found
assert len(lost) == 11 and "FOV" in lost and "THIN_PRISM_FISHEYE" in lost, lost
print("as described")
PY
