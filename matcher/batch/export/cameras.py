"""Which camera each image of a collection has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from matcher.batch.image_names import Root
from matcher.batch.options import Pinhole
from matcher.geometry.cameras import Camera, Size, same_shape
from matcher.geometry.pixels import original_to_network
from matcher.images.cameras import CameraOfImage, find_camera, read_cameras
from matcher.images.exif import exif_camera
from matcher.validation.checked import invalid


def camera_of_each_image(
    sizes: Mapping[str, Size], root: Root, pinhole: Pinhole | None, source: str | None
) -> dict[str, CameraOfImage]:
    """The camera of each image by its name, where anything is told of it.

    Args:
        sizes: of the images that can be read.
        pinhole: one camera of all images, see `camera_of_each_size`.
        source: else a file of cameras or ``exif``, see `read_cameras`.

    Raises:
        UsageError: as `camera_of_each_size`, `read_cameras` and `find_camera`.
    """
    if pinhole is not None:
        of_size = camera_of_each_size(pinhole, sizes)
        cameras = {size: Camera("PINHOLE", of_size[size], size) for size in of_size}
        return {name: CameraOfImage("K", cameras[size]) for name, size in sizes.items()}
    if source is None:
        return {}
    table = read_cameras(source, sizes)
    return {name: find_camera(table, name, root.path(name), size) for name, size in sizes.items()}


def count_known(names: Sequence[str], root: Root, source: str) -> int:
    """Of how many images a file of cameras has one, or ``exif`` tells the focal length.

    Raises:
        UsageError: as `read_cameras`.
    """
    table = read_cameras(source)
    if table is not None:
        return sum(map(table.has, names))
    found = (exif_camera(root.path(name)) for name in names)
    return sum(camera is not None and camera.focal_known for camera in found)


def camera_of_each_size(camera: Pinhole, sizes: Mapping[str, Size]) -> dict[Size, Pinhole]:
    """The camera at each of the sizes that images have.

    `camera` belongs to the size in whose middle its principal point lies, or nearest to it. At
    another scale of that size it is scaled. On its side, where nothing tells which way it was
    turned, the focal lengths change places and the principal point is the middle.

    Args:
        camera: the center of the top-left pixel at (0, 0).
        sizes: size of each image by its name.

    Raises:
        UsageError: an image has another shape, so that it is of another camera (E201).
    """
    own = _own_size(camera, list(sizes.values()))
    out: dict[Size, Pinhole] = {}
    for name, size in sizes.items():
        if size not in out:
            out[size] = _at_size(camera, own, size, name)
    return out


def _own_size(camera: Pinhole, sizes: list[Size]) -> Size:
    counts = Counter(sizes)
    center = np.array(camera[2:])

    def off(size: Size) -> tuple[float, int]:
        middle = (np.array(size) - 1) / 2
        return float(np.abs((center - middle) / size).max()), -counts[size]

    return min(counts, key=off)


def _at_size(camera: Pinhole, own: Size, size: Size, name: str) -> Pinhole:
    fx, fy, cx, cy = camera
    if size == own:
        return camera
    if same_shape(own, size):
        scale = np.array(own) / size
        x, y = original_to_network(np.array([cx, cy]), scale)
        return fx / scale[0], fy / scale[1], float(x), float(y)
    turned = own[1], own[0]
    if same_shape(turned, size):
        scale = np.array(turned) / size
        return fy / scale[0], fx / scale[1], (size[0] - 1) / 2, (size[1] - 1) / 2
    text = f"one camera: {name} has {size[0]} x {size[1]} pixels, others {own[0]} x {own[1]}"
    raise invalid("K", list(camera), f"images of {text}; leave K out, or match them apart")
