"""One matched pair as files of other programs, chosen by the suffix.

| suffix | what | for |
|---|---|---|
| ``.vrt`` | image 1 with control points | GDAL, ``gdalwarp`` |
| ``.points`` | control points of image 1 | QGIS's georeferencer |
| ``.pto`` | both images and their control points | Hugin |
| ``.ply`` | the points that both cameras see, in color | MeshLab, CloudCompare |

Where a model was fitted (``geometry=``), its inliers alone go into them.
"""

from __future__ import annotations

import os

import numpy as np

from matcher.geometry.cameras import Camera
from matcher.images.load import read_rgb
from matcher.interop.gdal import control_points, write_gdal, write_qgis
from matcher.interop.hugin import Picture, Tie, write_hugin
from matcher.interop.point_cloud import triangulate, write_ply
from matcher.options import MatchOptions
from matcher.results.record import MatchRecord


def write_for_others(path: str, record: MatchRecord, options: MatchOptions) -> None:
    """Write the file that `path` asks for; raises as the writers of `matcher.interop`."""
    matches = record.matches if record.inliers is None else record.matches[record.inliers]
    keypoints0, keypoints1, _ = matches.numpy()
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".ply":
        write_ply(path, *_cloud(keypoints0, keypoints1, record, options))
    elif suffix == ".pto":
        write_hugin(path, _pictures(record, options), [Tie(0, 1, keypoints0, keypoints1)])
    else:
        points = control_points(record.image0.name, keypoints0, keypoints1)
        if suffix == ".vrt":
            write_gdal(path, record.image1.name, points)
        else:
            write_qgis(path, points)


def _pictures(record: MatchRecord, options: MatchOptions) -> list[Picture]:
    cameras = record.cameras or [
        None if K is None else Camera.of_matrix(np.array(K)) for K in options.intrinsics
    ]
    return [
        Picture(
            os.path.abspath(image.name),
            image.width,
            image.height,
            None if camera is None else float(camera.focal[0]),
        )
        for image, camera in zip((record.image0, record.image1), cameras, strict=True)
    ]


def _cloud(
    keypoints0: np.ndarray, keypoints1: np.ndarray, record: MatchRecord, options: MatchOptions
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) points that lie in front of both cameras, and (N, 3) RGB as image 0 shows them; none
    without a pose."""
    if record.T_0to1 is None or record.cameras is None:
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    camera0, camera1 = record.cameras
    points = triangulate(
        camera0.undistorted(keypoints0),
        camera1.undistorted(keypoints1),
        K0=camera0.K,
        K1=camera1.K,
        T_0to1=record.T_0to1,
    )
    seen = np.isfinite(points).all(axis=1)
    reading = {name: getattr(options, name) for name in ("allow_truncated", "bands", "nodata")}
    image = read_rgb(record.image0.name, max_pixels=options.max_pixels, **reading)
    x, y = np.rint(keypoints0[seen]).astype(int).T
    return points[seen], image[y.clip(0, len(image) - 1), x.clip(0, image.shape[1] - 1)]
