"""Readers of published benchmarks on disk: ScanNet-1500, MegaDepth-1500 and HPatches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.real.index import read_arrays, read_scannet_index, read_scene_index
from data.real.megadepth import listed_indices, pair_files
from eval.benchmarks.folder import (
    EvalPair,
    faults_at,
    from_colmap_camera,
    lines_of,
    matrix_of,
    numbers,
    pose_of,
    posed_pairs,
)
from eval.benchmarks.options import BenchmarkOptions
from matcher.errors import Code, UsageError, missing
from matcher.geometry.validity import usable_homography, usable_intrinsics, usable_pose

SCANNET_K_SIZE = (640, 480)
"""The intrinsics of ScanNet-1500 belong to images of this size, whatever is stored."""
LARGE_SEQUENCES = (
    *(f"i_{name}" for name in ("contruction", "crownnight", "dc", "pencils", "whitebuilding")),
    *(f"v_{name}" for name in ("artisans", "astronautis", "talent")),
)
"""Of HPatches, in its spelling."""
LAYOUTS = "give the folder of LoFTR or of glue-factory"


def scannet_pairs(options: BenchmarkOptions, cache: Path) -> tuple[EvalPair, ...]:
    """ScanNet-1500: LoFTR's ``test.npz`` and ``intrinsics.npz``, or what `data.real.convert_index`
    made of them; or glue-factory's folder."""
    root = options.folder()
    glue = find(root, ("pairs_calibrated.txt", "scannet1500/pairs_calibrated.txt"))
    if glue is not None:
        return posed_pairs(glue, glue.parent, K_size=SCANNET_K_SIZE)
    folders = ("", "index/", "assets/scannet_test_1500/", "scannet_test_1500/")
    table = find(root, [f"{folder}test.{kind}" for folder in folders for kind in ("h5", "npz")])
    if table is None:
        raise missing(root / "test.npz", remedy=LAYOUTS)
    rows, _ = read_scannet_index(table)
    poses = read_arrays(table).get("rel_pose")
    if poses is None or poses.shape[:1] != (len(rows),):
        raise UsageError(Code.UNREADABLE_LIST, table, "has no rel_pose for every pair")
    converted = find(table.parent, ("intrinsics.h5",))
    intrinsics = read_arrays(converted or table.parent / "intrinsics.npz")
    scenes = next((f for f in (root / "test", root / "scannet_test_1500") if f.is_dir()), root)
    return tuple(
        _scannet_pair(row, pose, scenes, intrinsics, options.pose_source)
        for row, pose in zip(rows.tolist(), poses, strict=True)
    )


def _scannet_pair(
    row: Sequence[int],
    relative: np.ndarray,
    scenes: Path,
    intrinsics: dict[str, np.ndarray],
    source: str,
) -> EvalPair:
    scene, sub, frame0, frame1 = row
    name = f"scene{scene:04d}_{sub:02d}"
    folder = scenes / name
    if name not in intrinsics:
        raise UsageError(Code.UNREADABLE_LIST, "intrinsics.npz", f"has no {name}")
    with faults_at(f"intrinsics.npz: {name}"):
        K = usable_intrinsics(intrinsics[name].reshape(3, 3))
    files = [folder / "pose" / f"{frame}.txt" for frame in (frame0, frame1)]
    if source == "files" or (source == "auto" and all(file.is_file() for file in files)):
        # Camera-to-world on disk.
        world0, world1 = (pose_in(file) for file in files)
        T = np.linalg.inv(world1) @ world0
    else:
        with faults_at(f"rel_pose of {name} {frame0} {frame1}"):
            T = usable_pose(np.vstack([relative.reshape(3, 4), [0, 0, 0, 1]]))
    image0, image1 = (folder / "color" / f"{frame}.jpg" for frame in (frame0, frame1))
    return EvalPair(
        f"{name} {frame0} {frame1}", image0, image1, K0=K, K1=K, T_0to1=T, K_size=SCANNET_K_SIZE
    )


def pose_in(file: Path) -> np.ndarray:
    """(4, 4) of a text file that holds nothing else."""
    values = matrix_of(file, 4)
    with faults_at(file):
        return usable_pose(values)


def megadepth_pairs(options: BenchmarkOptions, cache: Path) -> tuple[EvalPair, ...]:
    """MegaDepth-1500: LoFTR's scene indices and images, or glue-factory's folder."""
    root = options.folder()
    glue = glue_megadepth(root)
    if glue is not None:
        return glue
    images = root / "test" if (root / "test").is_dir() else root
    pairs = []
    for index in _scene_indices(root):
        scene = read_scene_index(index)
        for row in range(len(scene.pairs)):
            files = pair_files(images, scene, row)
            name = " ".join((index.stem, *(path.name for path in files.images)))
            K0, K1 = files.K
            known = {
                "K0": K0,
                "K1": K1,
                "T_0to1": files.T_0to1,
                "overlap": float(scene.overlap[row]),
            }
            pairs.append(EvalPair(name, *files.images, **known))
    return tuple(pairs)


def _scene_indices(root: Path) -> list[Path]:
    """Index files in the order of their list, if there is one; of two forms of one, the HDF5."""
    info = "megadepth_test_1500_scene_info"
    for folder in (root, root / "index", root / info, root / "assets" / info):
        names = folder / "megadepth_test_1500.txt"
        if names.is_file():
            return listed_indices(folder, names)
        forms = {path.stem: path for kind in ("npz", "h5") for path in folder.glob(f"*.{kind}")}
        if forms:
            return [forms[stem] for stem in sorted(forms)]
    raise missing(root, "no scene index", LAYOUTS)


def glue_megadepth(root: Path) -> tuple[EvalPair, ...] | None:
    """MegaDepth-1500 as glue-factory keeps it: ``views.txt``, ``pairs.txt``, ``images/``; in its
    older form ``pairs_calibrated.txt``. None if `root` is neither."""
    older = find(root, ("pairs_calibrated.txt", "megadepth1500/pairs_calibrated.txt"))
    if older is not None:
        return posed_pairs(older, older.parent / "images", colmap=True)
    views = find(root, ("views.txt", "megadepth1500/views.txt"))
    if views is None:
        return None
    cameras = {}
    for number, line in lines_of(views):
        name, *words = line.split()
        if len(words) < 15 or words[12] not in ("PINHOLE", "SIMPLE_PINHOLE"):
            raise UsageError(Code.UNREADABLE_LIST, f"{views}:{number}", "not a pinhole view")
        count = 16 if words[12] == "PINHOLE" else 15
        values = numbers([*words[:12], *words[15:]], count, views, number)
        fx, fy, cx, cy = values[12:] if len(values) == 16 else values[[12, 12, 13, 14]]
        with faults_at(f"{views}:{number}"):
            K = usable_intrinsics(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
            cameras[name] = from_colmap_camera(K), usable_pose(pose_of(values[:12]))
    pairs = []
    listed = views.parent / "pairs.txt"
    for number, line in lines_of(listed):
        words = line.split()
        if len(words) != 2 or not cameras.keys() >= set(words):
            raise UsageError(Code.UNREADABLE_LIST, f"{listed}:{number}", "not two known views")
        (K0, T0), (K1, T1) = (cameras[word] for word in words)
        image0, image1 = (views.parent / "images" / word for word in words)
        T = T1 @ np.linalg.inv(T0)
        pairs.append(EvalPair(" ".join(words), image0, image1, K0=K0, K1=K1, T_0to1=T))
    return tuple(pairs)


def hpatches_pairs(options: BenchmarkOptions, cache: Path) -> tuple[EvalPair, ...]:
    """HPatches sequences: the first image against the five others, with ``H_1_2`` to ``H_1_6``.

    The eight sequences of large images are left out, as LoFTR and glue-factory do: of 116, 108
    remain, which are 540 pairs.
    """
    root = options.folder()
    pairs = []
    folders = (f for f in root.iterdir() if f.is_dir() and f.name[:2] in ("i_", "v_"))
    for folder in sorted(f for f in folders if f.name not in LARGE_SEQUENCES):
        for k in range(2, 7):
            H = matrix_of(folder / f"H_1_{k}", 3)
            with faults_at(folder / f"H_1_{k}"):
                H = usable_homography(H)
            images = folder / "1.ppm", folder / f"{k}.ppm"
            pairs.append(EvalPair(f"{folder.name} 1 {k}", *images, homography=H))
    return tuple(pairs)


def find(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the files that is there."""
    return next((root / name for name in names if (root / name).is_file()), None)
