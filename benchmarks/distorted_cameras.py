"""Rendered pairs through lenses that bend lines: pose errors beside those without distortion.

    python -m benchmarks.distorted_cameras [pairs=12] [seed=11]

Renders pairs of rooms, streets and clutter, looks at them through a lens of each of four models of
COLMAP that spans the same field, matches them and estimates their pose with the camera that is
known (`estimate_camera_pose`). The last column takes the lens for a pinhole.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import cv2
import numpy as np

from conf import plain_options
from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from eval.measure import pose_error
from matcher import Predictor, load_matcher
from matcher.geometry.cameras import Camera
from matcher.geometry.lenses import LENSES
from matcher.geometry.pose import estimate_camera_pose
from matcher.structures import ImagePair
from matcher.terminal.program import program

DEFAULTS = {"pairs": "12", "seed": "11"}
RENDERED, SEEN = (480, 640), (512, 384)
"""(height, width) of what is rendered, (width, height) of what a lens makes of it."""
BENT = {
    "SIMPLE_PINHOLE": (),
    "SIMPLE_RADIAL": (-0.15,),
    "OPENCV": (-0.2, 0.05, 0.001, -0.002),
    "OPENCV_FISHEYE": (-0.03, 0.01, -0.004, 0.001),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        -0.03, 0.01, -0.004, 0.001, 0.0005, -0.0002, 0.002, -0.001, 0.001, -0.0005, 0.002, 0.0007
    ),
}  # fmt: skip


def through_lens(model: str, K: np.ndarray) -> tuple[Camera, np.ndarray]:
    """The camera of widest field that sees nothing beyond an image rendered with `K`, and the
    (H, W, 2) float32 pixels of that image behind its own."""
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in SEEN))
    pixels, limit = np.stack([x, y], axis=-1), np.array(RENDERED[::-1]) - 1
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    for focal in np.geomspace(0.3, 3, 200) * SEEN[0]:
        focals = (float(focal),) * LENSES[model].focals
        center = ((SEEN[0] - 1) / 2, (SEEN[1] - 1) / 2)
        camera = Camera(model, (*focals, *center, *BENT[model]), SEEN)
        seen = camera.rays(border) * K[[0, 1], [0, 1]] + K[:2, 2]
        if ((seen >= 0) & (seen <= limit)).all():
            behind = camera.rays(pixels) * K[[0, 1], [0, 1]] + K[:2, 2]
            return camera, behind.reshape(pixels.shape).astype(np.float32)
    raise ValueError(f"{model}: no lens fits")


def errors(matcher: Predictor, pair: ImagePair) -> Iterator[tuple[float, float]]:
    """For each model degrees of the pose error with the camera, and with a pinhole in its place."""
    geometry = pair.geometry
    if geometry is None:
        raise ValueError("needs pairs with geometry")
    T = geometry.T_0to1[0].double().numpy()
    for model in BENT:
        views, cameras = [], []
        for image, K in ((pair.image0, geometry.K0), (pair.image1, geometry.K1)):
            camera, behind = through_lens(model, K[0].double().numpy())
            gray = (image[0, 0].clamp(0, 1).numpy() * 255).round().astype(np.uint8)
            views.append(cv2.remap(gray, behind[..., 0], behind[..., 1], cv2.INTER_LINEAR))
            cameras.append(camera)
        points = matcher.match(*views).numpy()[:2]
        plain = [Camera.of_matrix(camera.K, SEEN) for camera in cameras]
        yield tuple(
            pose_error(estimate_camera_pose(*points, camera0=first, camera1=second), T)
            for first, second in (cameras, plain)
        )  # pyright: ignore[reportReturnType]


def all_errors(matcher: Predictor, count: int, seed: int) -> np.ndarray:
    """(pairs, models, 2) degrees."""
    config = SyntheticConfig(
        size=RENDERED,
        pairs=count,
        seed=seed,
        mix={"room": 0.4, "street": 0.3, "clutter": 0.3},
        procedural=90,
        texture_seed=seed,
        overlap=(0.4, 0.9),
        strength=0.3,
    )
    scenes = SyntheticScenes(config)
    return np.array([list(errors(matcher, render(scenes[i]))) for i in range(count)])


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = {name: int(value) for name, value in plain_options(words, DEFAULTS).items()}
    matcher = load_matcher("compact", device="cpu", offline=True)
    found = all_errors(matcher, options["pairs"], options["seed"])
    first = np.median(found[:, 0, 0])
    for model, (known, plain) in zip(BENT, np.median(found, axis=0), strict=True):
        print(
            f"{model:27} median error {known:.3f} degrees, {known / first:.2f} times the "
            f"undistorted; as a pinhole {plain:.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
