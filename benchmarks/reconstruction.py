"""Structure from motion of photographs with survey-grade poses, from our matches alone.

    python benchmarks/reconstruction.py ../shared/eval/strecha fountain-P11 RUN [key=value ...]

Matches each image with the next ones by `match.py pairs=... export=colmap`, with the true
intrinsics, lets COLMAP map them and compares the camera centres with the ground truth of
``pairs_with_gt.txt`` after the best similarity. Further words are options of match.py. Needs the
extra ``sfm``.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import match  # noqa: E402
from matcher.batch.extras import require_extra  # noqa: E402

WINDOW = 4


def ground_truth(folder: Path, scene: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Camera centres (3,) by name, in metres from the first camera, and the (3, 3) intrinsics."""
    rows = [line.split() for line in (folder / "pairs_with_gt.txt").read_text().splitlines()]
    rows = [row for row in rows if row[0].startswith(scene)]
    K = np.array(rows[0][4:13], float).reshape(3, 3)
    step = {(row[0], row[1]): np.array(row[22:38], float).reshape(4, 4) for row in rows}
    names = sorted({name for pair in step for name in pair})
    pose, centres = np.eye(4), {names[0]: np.zeros(3)}
    for name0, name1 in pairwise(names):
        pose = step[name0, name1] @ pose
        centres[name1] = -pose[:3, :3].T @ pose[:3, 3]
    return centres, K


def aligned_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) distances after the similarity that brings `found` to `truth` (Umeyama, 1991)."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (d * flip).sum() / (a**2).sum()
    return np.linalg.norm(scale * a @ (u * flip @ vt).T - b, axis=1)


def reconstruct(database: Path, images: Path) -> Any:
    """The largest model that COLMAP makes of a database."""
    pycolmap = require_extra("pycolmap", "sfm", "this benchmark")
    models = database.parent / "sparse"
    models.mkdir(exist_ok=True)
    found = pycolmap.incremental_mapping(database, images, models)
    return max(found.values(), key=lambda model: model.num_reg_images())


def main(words: list[str]) -> int:
    folder, scene, run = Path(words[0]), words[1], Path(words[2])
    centres, K = ground_truth(folder, scene)
    names = list(centres)
    run.mkdir(parents=True, exist_ok=True)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 : i + 1 + WINDOW]]
    (run / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    camera = f"K=[{K[0, 0]},{K[1, 1]},{K[0, 2]},{K[1, 2]}]"
    code = match.main(
        [f"pairs={run / 'pairs.txt'}", f"root={folder / 'images'}", f"output={run}", camera,
         "export=colmap", *words[3:]]
    )  # fmt: skip
    if code:
        return code
    model = reconstruct(run / "colmap" / "database.db", folder / "images")
    found = {image.name: image.projection_center() for image in model.images.values()}
    errors = aligned_errors(
        np.array([found[name] for name in found]), np.array([centres[name] for name in found])
    )
    print(f"registered          {len(found)} of {len(names)}")
    print(f"points              {model.num_points3D()}")
    print(f"track length        {model.compute_mean_track_length():.2f}")
    print(f"reprojection error  {model.compute_mean_reprojection_error():.3f} px")
    print(
        f"centre error        {100 * errors.mean():.2f} cm mean, {100 * errors.max():.2f} cm most"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
