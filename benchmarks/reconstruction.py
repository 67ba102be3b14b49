"""Structure from motion of photographs with survey-grade poses, from our matches alone.

    python -m benchmarks.reconstruction ../shared/eval/strecha RUNS document=docs/reconstruction.md

Matches the pairs of a scene in ``pairs_with_gt.txt`` by `match.py pairs=... export=colmap`, with
the true intrinsics, lets COLMAP map them and compares the camera centers with the ground truth of
that file after the best similarity. RUNS is a folder to work in: what is matched there
already is not matched again. Further words: ``scenes=A,B`` (names of images begin so),
``merge=1,2,4`` (pixels), ``converged_only=true,false``, ``refine_tracks=true,false`` (all
combinations are tried), ``document=FILE`` and options of match.py. Needs the extra ``sfm``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import match
from eval.benchmarks.folder import lines_of
from eval.report.tables import markdown_table
from matcher.batch.run import open_run
from matcher.errors import Code, UsageError, require_extra
from matcher.files import check_targets, write_atomically
from matcher.terminal.program import program

SCENES = "fountain-P11,Herz-Jesus-P25"
TRIED = {"merge": "1,2", "converged_only": "true", "refine_tracks": "true,false"}
"""Options of the export and their values, all combinations of which are tried."""
PAGE = """\
# Reconstruction

Written by `python -m benchmarks.reconstruction`; do not edit. To make it anew:

```
python -m benchmarks.reconstruction ../shared/eval/strecha RUNS{options} document=docs/reconstruction.md
```

The photographs of Strecha's {scenes} at a long side of 832 pixels.
The pairs that see the same ({pairs}) are matched by our matcher alone, points merged
in cells of `merge` pixels (`match.py pairs=... export=colmap`), without those whose refinement did
not converge (`converged_only`), all points of a track laid on one of its views (`refine_tracks`);
the true intrinsics, then COLMAP's incremental mapping with its own settings. Center error: distance
of the camera centers from the surveyed ones after the best similarity.

Weights sha256 {weights}.

{table}"""  # noqa: E501
HEAD = (
    "scene", "merge", "converged only", "tracks refined", "registered", "points", "images a point",
    "reprojection error", "center error, mean", "center error, most",
)  # fmt: skip


class Score(NamedTuple):
    """One reconstruction against the truth."""

    scene: str
    tried: dict[str, str]
    """`TRIED`, a value each"""
    registered: int
    images: int
    points: int
    track: float
    reprojection: float
    """mean, in pixels"""
    errors: np.ndarray
    """(registered,) of the camera centers, in meters"""

    @property
    def row(self) -> tuple[str, ...]:
        return (
            self.scene,
            f"{self.tried['merge']} px",
            self.tried["converged_only"],
            self.tried["refine_tracks"],
            f"{self.registered} of {self.images}",
            f"{self.points:,}",
            f"{self.track:.1f}",
            f"{self.reprojection:.2f} px",
            f"{100 * self.errors.mean():.2f} cm",
            f"{100 * self.errors.max():.2f} cm",
        )


def true_rows(folder: Path, scene: str) -> list[list[str]]:
    """The columns of ``pairs_with_gt.txt`` for the pairs of a scene."""
    rows = [line.split() for _, line in lines_of(folder / "pairs_with_gt.txt")]
    return [row for row in rows if row[0].startswith(scene)]


def true_poses(folder: Path, scene: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Poses (4, 4) by name, from the first camera, in meters, and the (3, 3) intrinsics."""
    rows = true_rows(folder, scene)
    step = {}
    for name0, name1, *values in rows:
        T_0to1 = np.array(values[20:36], float).reshape(4, 4)
        step[name0, name1], step[name1, name0] = T_0to1, np.linalg.inv(T_0to1)
    first = min(chain.from_iterable(step))
    poses, front = {first: np.eye(4)}, [first]
    while front:
        name = front.pop(0)
        for (name0, name1), T_0to1 in step.items():
            if name0 == name and name1 not in poses:
                poses[name1] = T_0to1 @ poses[name0]
                front.append(name1)
    return dict(sorted(poses.items())), np.array(rows[0][4:13], float).reshape(3, 3)


def ground_truth(folder: Path, scene: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Camera centers (3,) by name, in meters from the first camera, and the (3, 3) intrinsics."""
    poses, K = true_poses(folder, scene)
    return {name: -pose[:3, :3].T @ pose[:3, 3] for name, pose in poses.items()}, K


def aligned_errors(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) distances after the similarity that brings `estimate` to `truth` (Umeyama, 1991)."""
    a, b = estimate - estimate.mean(0), truth - truth.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (d * flip).sum() / (a**2).sum()
    return np.linalg.norm(scale * a @ (u * flip @ vt).T - b, axis=1)


def reconstruct(database: Path, images: Path) -> Any:
    """The largest model that COLMAP makes of a database."""
    pycolmap = require_extra("pycolmap", "sfm", "this benchmark")
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    models = database.parent / "sparse"
    models.mkdir(exist_ok=True)
    reconstructions = pycolmap.incremental_mapping(database, images, models)
    return max(reconstructions.values(), key=lambda model: model.num_reg_images())


def scores(
    folder: Path, runs: Path, scene: str, tried: Sequence[dict[str, str]], words: Sequence[str]
) -> Iterator[Score]:
    """Match a scene once and reconstruct it with each way to export; words go to match.py."""
    centers, K = ground_truth(folder, scene)
    names = list(centers)
    for export in tried:
        how = [f"{name}={value}" for name, value in export.items()]
        database = matched(folder, runs / scene, scene, K, [*how, *words])
        model = reconstruct(database, folder / "images")
        cameras = {image.name: image.projection_center() for image in model.images.values()}
        errors = aligned_errors(
            np.array(list(cameras.values())), np.array([centers[name] for name in cameras])
        )
        yield Score(
            scene, export, len(cameras), len(names), model.num_points3D(),
            model.compute_mean_track_length(), model.compute_mean_reprojection_error(), errors,
        )  # fmt: skip


def matched(folder: Path, run: Path, scene: str, K: np.ndarray, words: Sequence[str]) -> Path:
    """COLMAP's database of the pairs of a scene, matched in the folder `run`."""
    run.mkdir(parents=True, exist_ok=True)
    pairs = sorted((row[0], row[1]) for row in true_rows(folder, scene))
    (run / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    code = match.main([
        f"pairs={run / 'pairs.txt'}", f"root={folder / 'images'}", f"output={run}",
        f"K=[{K[0, 0]},{K[1, 1]},{K[0, 2]},{K[1, 2]}]", "export=colmap", *words,
    ])  # fmt: skip
    if code:
        raise SystemExit(code)
    return run / "colmap" / "database.db"


def table(results: Sequence[Score]) -> str:
    return markdown_table([HEAD, ("---",) * len(HEAD), *(score.row for score in results)])


def two_folders(words: Sequence[str]) -> tuple[Path, Path]:
    """What the first two words name; fewer are refused."""
    if len(words) < 2:
        raise UsageError(Code.REFUSED_WORD, "words", "are missing", "see --help")
    return Path(words[0]), Path(words[1])


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    folder, runs = two_folders(words)
    odd = [word for word in words[2:] if "=" not in word]
    if odd:
        raise UsageError(Code.UNUSABLE_WORD, odd[0], "is not an option", "write key=value")
    given = dict(word.split("=", 1) for word in words[2:])
    scenes, document = given.pop("scenes", SCENES).split(","), given.pop("document", "")
    check_targets([document] if document else [], ())
    values = [given.pop(name, default).split(",") for name, default in TRIED.items()]
    tried = [dict(zip(TRIED, each, strict=True)) for each in product(*values)]
    options = [f"{name}={value}" for name, value in given.items()]
    results = []
    for scene in scenes:
        for score in scores(folder, runs, scene, tried, options):
            results.append(score)
            print(" | ".join(score.row), flush=True)
    if document:
        manifest = open_run(runs / results[0].scene).manifest
        shown = "".join(f" {word}" for word in words[2:] if not word.startswith("document="))
        page = PAGE.format(
            options=shown,
            scenes=" and ".join(scenes),
            pairs=", ".join(f"{len(true_rows(folder, s))} of {s}" for s in scenes),
            weights=manifest.settings["weights_sha256"],
            table=table(results),
        )
        write_atomically(document, page.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
