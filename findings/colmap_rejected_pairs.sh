#!/usr/bin/env bash
# pycolmap: pairs that geometric verification rejects are counted as verified image pairs.
#
# Versions: pycolmap 4.2.1, numpy 2.4.6 (Python 3.11 to 3.13).
#
# Behavior: geometric_verification() enters a two-view geometry for every pair with matches, also
# for one that it rejects; that row has no inliers. Database.num_verified_image_pairs() counts these
# rows, and exists_two_view_geometry() is true for them. Only the number of inliers tells them from
# verified ones. Here: 20 images, 10 pairs of 300 matches between points at random.
#
# Output seen:
#   pairs with matches 10, num_verified_image_pairs 10, exists 10, pairs with inliers 0, inliers 0
#
# For a user: a share of verified pairs computed from that count is always 100%, so that a matcher
# that finds nothing looks perfect. Count pairs whose number of inliers
# (read_two_view_geometry_num_inliers) is above zero, or delete the empty rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pycolmap==4.2.1
"$work/venv/bin/python" - "$work/database.db" <<'PY'
import sys

import numpy as np
import pycolmap

pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
rng = np.random.default_rng(0)
path = sys.argv[1]
pairs = [(2 * i + 1, 2 * i + 2) for i in range(10)]
with pycolmap.Database.open(path) as file:
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 1000.0, 1000, 1000)
    file.write_camera(camera, use_camera_id=True)
    rig = pycolmap.Rig(rig_id=1)
    rig.add_ref_sensor(camera.sensor_id)
    file.write_rig(rig, use_rig_id=True)
    for number in range(1, 21):
        image = pycolmap.Image(name=f"{number}.jpg", camera_id=1, image_id=number)
        file.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=number, rig_id=1)
        frame.add_data_id(image.data_id)
        file.write_frame(frame, use_frame_id=True)
        file.write_keypoints(number, rng.uniform(0, 1000, (300, 2)).astype(np.float32))
    for pair in pairs:
        file.write_matches(*pair, np.repeat(np.arange(300, dtype=np.uint32)[:, None], 2, axis=1))
options = {"min_inlier_ratio": 0.25, "ransac": {"min_inlier_ratio": 0.25, "random_seed": 0}}
pycolmap.geometric_verification(path, two_view_geometry_options=options)
with pycolmap.Database.open(path) as file:
    counted = file.num_verified_image_pairs()
    exists = sum(file.exists_two_view_geometry(*pair) for pair in pairs)
    inliers = [int(n) for n in file.read_two_view_geometry_num_inliers()[1]]
    print(
        f"pycolmap {pycolmap.__version__}: pairs with matches {len(pairs)}, "
        f"num_verified_image_pairs {counted}, exists {exists}, "
        f"pairs with inliers {sum(n > 0 for n in inliers)}, inliers {sum(inliers)}"
    )
if (counted, exists, sum(inliers)) != (10, 10, 0):
    sys.exit("the behavior has changed")
PY
