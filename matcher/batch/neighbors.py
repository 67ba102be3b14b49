"""Pairs of images that are near each other: by what they show, by a model, or by their GPS."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from matcher.batch.folders import Tell
from matcher.batch.options import CollectionOptions
from matcher.batch.pairs import Choice
from matcher.errors import missing
from matcher.geometry.colmap_model import load_model
from matcher.images.exif import gps_position

Nearness = Callable[[int], np.ndarray]
"""(N,) float of one image to all, the higher the nearer, -inf for never."""
WIDEST = 60.0
"""Degrees between the axes of two cameras that can see the same, at most."""


def chooser(options: CollectionOptions, warn: Tell) -> Choice | None:
    """What picks the pairs that `options` ask for; None where no nearness is asked for.

    What it picks from may lack things: it raises UsageError for a model that cannot be read (E111,
    E112) or without pycolmap (E210), and as `matcher.predictor.load_matcher`.
    """
    if options.select in ("exhaustive", "sequential"):
        return None

    def choose(names: list[str], folder: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        paths = [os.path.join(folder, name) for name in names]
        if options.select == "retrieval":
            from matcher.batch.retrieval import describe
            from matcher.predictor import load_matcher

            near = by_descriptor(describe(paths, load_matcher(options.weights, options)))
        elif options.select == "gps":
            near = by_place([gps_position(path) for path in paths], names, warn)
        else:
            model = read_model(options.model or "")
            tell_absent(model, names, warn)
            by = by_points if options.select == "covisible" else by_cameras
            near = by(model, names)
        return nearest_pairs(near, first, second, options.reach)

    return choose


def nearest_pairs(near: Nearness, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """(N, 2) int32: each image of `first` with the `count` of `second` that are nearest to it; two
    images that are both in both come once, the lower number first."""
    pairs = [np.zeros((0, 2), np.int32)]
    for image in first.tolist():
        scores = np.where(second == image, -np.inf, near(image)[second])
        # Equal ones in order, so that the same images give the same pairs.
        order = np.argsort(-scores, kind="stable")[:count]
        chosen = second[order[np.isfinite(scores[order])]]
        pairs.append(np.stack([np.full(len(chosen), image), chosen], axis=1).astype(np.int32))
    index = np.concatenate(pairs)
    both = np.isin(index, np.intersect1d(first, second)).all(axis=1)
    index[both] = np.sort(index[both], axis=1)
    return np.unique(index, axis=0)


def by_descriptor(descriptors: np.ndarray) -> Nearness:
    """Nearness of (N, C) descriptors of length 1."""
    return lambda image: descriptors @ descriptors[image]


def by_place(places: list[np.ndarray | None], names: list[str], warn: Tell) -> Nearness:
    """Nearness of (3,) places; images without one are left out, which `warn` hears."""
    unknown = [name for name, place in zip(names, places, strict=True) if place is None]
    if unknown:
        warn(f"left out  {len(unknown)} images without GPS in EXIF, such as {unknown[0]}")
    table = np.array([np.full(3, np.nan) if place is None else place for place in places])

    def near(image: int) -> np.ndarray:
        distance = np.linalg.norm(table - table[image], axis=1)
        return np.where(np.isfinite(distance), -distance, -np.inf)

    return near


def read_model(folder: str) -> Any:
    """A COLMAP model, as pycolmap has it.

    Raises:
        UsageError: pycolmap is not installed (E210), there is no model (E111) or a damaged one
            (E112).
    """
    if not any(os.path.isfile(os.path.join(folder, f"images.{kind}")) for kind in ("bin", "txt")):
        raise missing(folder, "holds no COLMAP model", "give the folder of its images.bin")
    return load_model(folder, "model=")


def tell_absent(model: Any, names: list[str], warn: Tell) -> None:
    """Tell which images a model does not place, and how it writes the names of its own."""
    placed = {image.name for image in model.images.values() if image.has_pose}
    absent = [name for name in names if name not in placed]
    if absent:
        like = f", whose own are such as {min(placed)}" if placed else ""
        warn(f"left out  {len(absent)} images, such as {absent[0]}, that the model lacks{like}")


def by_points(model: Any, names: list[str]) -> Nearness:
    """Nearness by the number of points that two images of a model both see, at least one."""
    number = {name: i for i, name in enumerate(names)}
    of_model = {i: number[image.name] for i, image in model.images.items() if image.name in number}
    own = {of_model[i]: model.images[i] for i in of_model}

    def near(image: int) -> np.ndarray:
        seen = np.zeros(len(names))
        for point in own[image].get_observation_points2D() if image in own else ():
            for element in model.points3D[point.point3D_id].track.elements:
                if element.image_id in of_model:
                    seen[of_model[element.image_id]] += 1
        return np.where(seen > 0, seen, -np.inf)

    return near


def by_cameras(model: Any, names: list[str]) -> Nearness:
    """Nearness of camera centers, of cameras of a model that look the same way to `WIDEST`."""
    posed = {image.name: image for image in model.images.values() if image.has_pose}
    unknown = np.full(3, np.nan)
    known = [posed.get(name) for name in names]
    centers = np.array([unknown if i is None else i.projection_center() for i in known])
    axes = np.array([unknown if i is None else i.viewing_direction() for i in known])

    def near(image: int) -> np.ndarray:
        distance = np.linalg.norm(centers - centers[image], axis=1)
        alike = axes @ axes[image] >= np.cos(np.radians(WIDEST))
        return np.where(alike & np.isfinite(distance), -distance, -np.inf)

    return near
