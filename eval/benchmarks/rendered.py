"""Benchmarks that this project renders, as files like any other benchmark.

They are rendered once into a folder that is named by everything they depend on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch

import data.synthetic
from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.photos import list_photos
from data.synthetic.render import render
from eval.benchmarks.folder import EvalPair, content_of, read_pairs_with_gt
from eval.benchmarks.options import BenchmarkOptions
from eval.benchmarks.sizing import EXACT
from eval.source import source_digest
from matcher.drawing.matches import write_picture
from matcher.errors import Code, UsageError, unwritable
from matcher.files import make_folder, sha256_of
from matcher.images.load import read_rgb
from matcher.images.preprocess import resize
from matcher.validation.checked import invalid

HELD_OUT_SEED = 777_000_777
"""Far from every seed of training and its validation."""
RENDERER = (Path(data.synthetic.__file__ or "").parent, Path(__file__))
"""Code whose change renders scenes anew."""
SEAL = "contents.sha256"
"""File with the hash of all that was rendered beside it."""
SIZE0, SIZE1 = (313, 471), (257, 339)
"""(width, height) of the two images of a warp: no common divisor with anything."""


def require_count(options: BenchmarkOptions) -> None:
    """Refuse to render nothing (E201)."""
    if options.count < 1:
        raise invalid("benchmark.count", options.count, "an integer of at least 1")


def synthetic_pairs(options: BenchmarkOptions, cache: Path) -> tuple[EvalPair, ...]:
    """Rendered scenes with exact depth and pose; `root` may hold photographs for textures."""
    width, height = options.size or (480, 360)
    require_count(options)
    config = SyntheticConfig(
        size=(height, width),
        pairs=options.count,
        mix=options.mix,
        overlap=options.overlap,
        photos=options.root,
        texture_side=options.texture_side,
        procedural=90,
        texture_seed=HELD_OUT_SEED,
        seed=HELD_OUT_SEED,
    )
    photos = list_photos(options.folder()) if options.root else []
    what = json.dumps([repr(config), *_listed(photos)])
    folder = _once(cache, "synthetic", what, lambda to: _render_scenes(config, to))
    return tuple(
        replace(
            pair,
            depth0=folder / "depth" / f"{pair.image0.stem}.npy",
            depth1=folder / "depth" / f"{pair.image1.stem}.npy",
        )
        for pair in read_pairs_with_gt(folder)
    )


def _render_scenes(config: SyntheticConfig, folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "depth").mkdir()
    scenes, lines = SyntheticScenes(config), []
    for index in range(len(scenes)):
        with torch.inference_mode():
            pair = render(scenes[index])
        geometry = pair.geometry
        if geometry is None:
            raise RuntimeError("a rendered pair has no geometry")
        kind = pair.names[0][0].split("/")[0]
        names = [f"{kind}_{index:04d}_{i}" for i in (0, 1)]
        depths = geometry.depth0, geometry.depth1
        for name, image, depth in zip(names, (pair.image0, pair.image1), depths, strict=True):
            gray = (image[0, 0].clamp(0, 1) * 255).round().byte().numpy()
            write_picture(folder / "images" / f"{name}.png", np.repeat(gray[..., None], 3, axis=2))
            np.save(folder / "depth" / f"{name}.npy", depth[0].numpy())
        matrices = (geometry.K0, geometry.K1, geometry.T_0to1)
        values = [repr(v) for m in matrices for v in m[0].double().flatten().tolist()]
        lines.append(" ".join([*(f"{name}.png" for name in names), "0", "0", *values]))
    (folder / "pairs_with_gt.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def warp_pairs(options: BenchmarkOptions, cache: Path) -> tuple[EvalPair, ...]:
    """Photographs against seeded homographies of themselves.

    The corners of the view move by up to 15% of its sides, after a turn of up to 15 degrees and a
    zoom of 0.85 to 1.2; gain and gamma change too. `root` holds photographs; without it those
    that come with matplotlib and scikit-learn are used.
    """
    require_count(options)
    photos = list_photos(options.folder()) if options.root else sample_photos()
    what = json.dumps([options.count, *_listed(photos)])
    folder = _once(cache, "warps", what, lambda to: _render_warps(photos, options.count, to))
    truth = json.loads((folder / "homographies.json").read_text(encoding="utf-8"))
    return tuple(
        EvalPair(name, folder / f"{name}_0.png", folder / f"{name}_1.png", homography=np.array(H))
        for name, H in truth.items()
    )


def _listed(photos: Sequence[Path]) -> list[str]:
    """The names of photographs and what they hold."""
    return [f"{photo.name} {content_of(photo)}" for photo in photos]


def sample_photos() -> list[Path]:
    """Photographs that come with packages; `UsageError` (E210) if one is not installed."""
    samples = {
        "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
        "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    }
    photos = []
    for package, names in samples.items():
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            what = f"needs photographs: those of {package} are not installed"
            remedy = 'root=DIR, or pip install "quadmatch[dev]"'
            raise UsageError(Code.MISSING_EXTRA, "benchmark=warps", what, remedy)
        photos += [Path(spec.origin).parent / name for name in names]
    return photos


def _render_warps(photos: list[Path], count: int, folder: Path) -> None:
    truth = {}
    order = np.random.default_rng(HELD_OUT_SEED).permutation(len(photos))
    for index in range(count):
        rng = np.random.default_rng((HELD_OUT_SEED, index))
        photo = _portrait(read_rgb(photos[order[index % len(photos)]]))
        size = (photo.shape[1], photo.shape[0])
        H = EXACT.conversion(SIZE0, SIZE1) @ draw_homography(rng, SIZE0)
        from_photo = H @ EXACT.conversion(size, SIZE0)
        image1 = cv2.warpPerspective(photo, from_photo, SIZE1, flags=cv2.INTER_AREA)
        gain, gamma = rng.uniform(0.7, 1.3), np.exp(rng.normal() * 0.2)
        image1 = 255 * np.clip(gain * (image1 / 255.0) ** gamma, 0, 1)
        name = f"{index:03d}"
        write_picture(folder / f"{name}_0.png", resize(photo, SIZE0))
        write_picture(folder / f"{name}_1.png", image1.round().astype(np.uint8))
        truth[name] = H.tolist()
    (folder / "homographies.json").write_text(json.dumps(truth), encoding="utf-8")


def _portrait(photo: np.ndarray) -> np.ndarray:
    """The largest centered part with the shape of image 0, at most three times as large."""
    height, width = photo.shape[:2]
    part = min(width / SIZE0[0], height / SIZE0[1])
    w, h = round(SIZE0[0] * part), round(SIZE0[1] * part)
    x, y = (width - w) // 2, (height - h) // 2
    part = min(part, 3.0)
    size = (round(SIZE0[0] * part), round(SIZE0[1] * part))
    return resize(photo[y : y + h, x : x + w], size)


def draw_homography(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(3, 3) from an image of `size` to a view of it of the same size."""
    width, height = size
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], float)
    center = corners.mean(axis=0)
    angle, zoom = np.radians(rng.uniform(-15, 15)), rng.uniform(0.85, 1.2)
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (corners - center) @ turn.T + center
    moved += rng.uniform(-0.15, 0.15, (4, 2)) * size
    return cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))


def _once(cache: Path, kind: str, what: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills, made unless it is there and intact; never half made."""
    digest = hashlib.sha256(f"{source_digest(RENDERER)} {what}".encode()).hexdigest()
    folder = cache / f"{kind}-{digest[:12]}"
    if _is_intact(folder):
        return folder
    make_folder(cache)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=cache) as place:
            part = Path(place) / "part"
            part.mkdir()
            make(part)
            (part / SEAL).write_text(_contents(part))
            if not _is_intact(folder):  # Otherwise another process was first.
                shutil.rmtree(folder, ignore_errors=True)
                part.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def _is_intact(folder: Path) -> bool:
    """Whether a folder holds what was rendered; a power cut may leave files empty."""
    try:
        return (folder / SEAL).read_text() == _contents(folder)
    except (OSError, ValueError):
        return False


def _contents(folder: Path) -> str:
    """Hash of all files in a folder but the seal."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    lines = [f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
