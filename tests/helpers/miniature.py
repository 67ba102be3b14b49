"""Miniature MegaDepth and ScanNet trees in LoFTR's layout, of rendered pairs with exact depth."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np

from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from data.synthetic.scene import SceneBatch
from matcher.structures import ImagePair

SCANNET_SCENES = ("scene0000_00", "scene0001_01")


@dataclass(frozen=True)
class Frame:
    """A rendered picture: (H, W) uint8 gray, (H, W) depth, K, and the world-to-camera pose."""

    gray: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    pose: np.ndarray


def rendered_scenes(
    count: int, size: tuple[int, int] = (96, 128), seed: int = 5
) -> list[tuple[Frame, Frame]]:
    """`count` pairs of frames, each a scene of its own."""
    config = SyntheticConfig(
        size=size,
        pairs=count,
        mix={"room": 1.0},
        overlap=(0.4, 0.9),
        texture_side=128,
        procedural=27,
        strength=0.0,
        seed=seed,
    )
    scenes = SyntheticScenes(config)
    return [frames_of(scenes[i], render(scenes[i])) for i in range(count)]


def frames_of(scene: SceneBatch, pair: ImagePair) -> tuple[Frame, Frame]:
    geometry = pair.geometry
    if geometry is None:
        raise ValueError("a rendered pair without geometry")
    sides = (
        (pair.image0, geometry.depth0, geometry.K0, scene.pose[0, 0]),
        (pair.image1, geometry.depth1, geometry.K1, scene.pose[0, 1]),
    )
    first, second = (
        Frame(
            (image[0, 0].numpy() * 255).round().astype(np.uint8),
            depth[0].numpy(),
            K[0].double().numpy(),
            pose.numpy(),
        )
        for image, depth, K, pose in sides
    )
    return first, second


def megadepth_tree(
    root: Path, scenes: int = 2, *, own_images: bool = False, size: tuple[int, int] = (96, 128)
) -> Path:
    """Write a MegaDepth tree: ``root/test`` with images and depth, and ``root/index`` with bare
    pickles named npz and their list. Returns `root`.

    Args:
        root: where to.
        scenes: number of scenes, each of one pair and an image that is missing.
        own_images: keep the images where MegaDepth has them instead of D2-Net's copy.
        size: (H, W) of the pictures.
    """
    base, index = root / "test", root / "index"
    index.mkdir(parents=True)
    names = []
    for number, frames in enumerate(rendered_scenes(scenes, size)):
        scene = f"{number:04d}"
        images, depths = [], []
        for i, frame in enumerate(frames):
            image = f"Undistorted_SfM/{scene}/images/{i}.jpg"
            depth = f"phoenix/S6/zl548/MegaDepth_v1/{scene}/dense0/depths/{i}.h5"
            own = f"phoenix/S6/zl548/MegaDepth_v1/{scene}/dense0/imgs/{i}.jpg"
            write_image(base / (own if own_images else image), frame.gray)
            write_depth_h5(base / depth, frame.depth)
            images.append(image)
            depths.append(depth)
        values = {
            "image_paths": objects([None, *images]),
            "depth_paths": objects([None, *depths]),
            "intrinsics": objects([None, *(f.K for f in frames)]),
            "poses": objects([None, *(f.pose for f in frames)]),
            "pair_infos": [(np.array([1, 2]), np.float64(0.3 + 0.2 * number), np.zeros(4))],
        }
        names.append(f"{scene}_0.1_0.3")
        (index / f"{names[-1]}.npz").write_bytes(pickle.dumps(values, protocol=4))
    (index / "list.txt").write_text("\n".join(names))
    return root


def scannet_tree(root: Path, *, flat_intrinsics: bool = False, score: bool = True) -> Path:
    """Write a ScanNet tree: ``root/<scene>/{color,depth,pose}``, ``root/index/<scene>.npz`` and
    ``root/index/intrinsics.npz``, pictures of 640 x 480. Returns `root`.

    Args:
        root: where to.
        flat_intrinsics: float32 (9,) as for training instead of float64 (3, 3).
        score: with overlap scores, as for training; else with ``rel_pose``, as for the test.
    """
    (root / "index").mkdir(parents=True)
    intrinsics = {}
    for scene, frames in zip(SCANNET_SCENES, rendered_scenes(2, (480, 640), seed=6), strict=True):
        # One camera a scene: the second picture is warped to the first one's intrinsics.
        K = frames[0].K
        for i, frame in enumerate(frames):
            change = K @ np.linalg.inv(frame.K)
            gray = cv2.warpPerspective(frame.gray, change, (640, 480))
            depth = cv2.warpPerspective(frame.depth, change, (640, 480), flags=cv2.INTER_NEAREST)
            write_image(root / scene / "color" / f"{i}.jpg", gray)
            millimeters = (depth * 1000).round().astype(np.uint16)
            write_image(root / scene / "depth" / f"{i}.png", millimeters)
            pose = root / scene / "pose" / f"{i}.txt"
            pose.parent.mkdir(exist_ok=True)
            np.savetxt(pose, np.linalg.inv(frame.pose))
        intrinsics[scene] = K.astype(np.float32).reshape(9) if flat_intrinsics else K
        number, sub = int(scene[5:9]), int(scene[10:])
        relative = (frames[1].pose @ np.linalg.inv(frames[0].pose))[:3].reshape(1, 12)
        extra = (
            {"score": np.array([0.7, 0.2], np.float16)}
            if score
            else {"rel_pose": np.repeat(relative, 2, 0).astype(np.float32)}
        )
        rows = np.array([[number, sub, 0, 1], [number, sub, 1, 0]], np.uint16)
        np.savez(root / "index" / f"{scene}.npz", name=rows, **extra)
    np.savez(root / "index" / "intrinsics.npz", **intrinsics)
    return root


def objects(values: list) -> np.ndarray:
    """(N,) object array."""
    out = np.empty(len(values), object)
    for i, value in enumerate(values):
        out[i] = value
    return out


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def write_depth_h5(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("depth", data=depth.astype(np.float32))
