"""Each photograph of a surveyed scene in a model of the others, from our matches alone.

    python -m benchmarks.localization ../shared/eval/strecha RUNS

Matches the pairs of fountain-P11 in ``pairs_with_gt.txt``, triangulates the matches of all but one
photograph at the true poses (COLMAP's triangulation), and localizes that one as `quadmatch
localize` does. RUNS is a folder to work in: what is matched there already is not matched again.
Further words: ``scene=NAME`` (names of images begin so), ``most=NUMBER`` of `quadmatch localize`
and ``focal=unknown``, which keeps the focal length from it. Needs the extra ``sfm``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reconstruction import matched, true_poses, two_folders
from conf import plain_options
from eval.metrics import rotation_error
from matcher.errors import require_extra
from matcher.geometry.cameras import Camera
from matcher.images.decode import stored_size
from matcher.predictor import load_matcher
from matcher.tasks.localization.localizer import Localizer, Location
from matcher.tasks.localization.scene import read_scene
from matcher.terminal.program import program

DEFAULTS = {"scene": "fountain-P11", "most": "5", "focal": "known"}
MATCHING = ("merge=1", "converged_only=true")


def triangulated(database: Path, images: Path, poses: dict[str, np.ndarray], folder: Path) -> Path:
    """The folder of a model of the images with `poses`, from the matches in a database."""
    pycolmap = require_extra("pycolmap", "sfm", "this benchmark")
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as file:
        for camera in file.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for image in file.read_all_images():
            if image.name in poses:
                pose = pycolmap.Rigid3d(poses[image.name][:3])
                bare = pycolmap.Image(
                    name=image.name, camera_id=image.camera_id, image_id=image.image_id
                )
                model.add_image_with_trivial_frame(bare, pose)
    folder.mkdir(parents=True, exist_ok=True)
    pycolmap.triangulate_points(model, database, images, folder)
    return folder


def errors(found: Location | None, pose: np.ndarray) -> tuple[float, float]:
    """Meters and degrees from the true (4, 4) pose; infinite where there is none."""
    if found is None:
        return np.inf, np.inf
    center = -pose[:3, :3].T @ pose[:3, 3]
    distance = float(np.linalg.norm(found.center - center))
    return distance, rotation_error(found.pose[:3, :3], pose[:3, :3])


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    folder, runs = two_folders(words)
    given = plain_options(words[2:], DEFAULTS)
    scene, images = given["scene"], folder / "images"
    poses, K = true_poses(folder, scene)
    database = matched(folder, runs / scene, scene, K, MATCHING)
    matcher: Any = load_matcher("compact", device="cpu", offline=True)
    rows = []
    for name, pose in poses.items():
        others = {other: T for other, T in poses.items() if other != name}
        model = triangulated(database, images, others, runs / scene / "models" / Path(name).stem)
        localizer = Localizer(matcher, read_scene(str(model), str(images)), int(given["most"]))
        path = str(images / name)
        size = stored_size(path) or (1, 1)
        known = given["focal"] == "known"
        camera = Camera.of_matrix(K, size) if known else Camera.guessed(size)
        found = localizer.localize(path, camera)
        rows.append(errors(found, pose))
        distance, angle = rows[-1]
        told = "" if found is None else f"{found.inliers} of {found.points} points"
        if found is not None and not known:
            told += f", focal length off by {found.camera.focal[0] / K[0, 0] - 1:+.2%}"
        print(f"{name} {100 * distance:.2f} cm {angle:.4f} degrees {told}", flush=True)
    distance, angle = np.median(rows, axis=0)
    print(f"median {100 * distance:.2f} cm {angle:.4f} degrees of {len(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
