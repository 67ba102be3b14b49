#!/usr/bin/env bash
# torchvision: KeyPoints move by another rule than their image, up to 1.5 px off, each way another.
#
# Versions: torchvision 0.28.0, torch 2.13.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU builds. Where only
# torch is one, the script declares the two compiled operators that importing torchvision asks for;
# none is called.)
#
# Behavior: transforms.v2 moves tv_tensors.KeyPoints together with the image. Flips count from the
# center of the first pixel (x becomes W - 1 - x), resizing and rotation from its outer corner (x
# becomes 2 x, the center is W / 2). No convention is right for all of them: a half turn and two
# flips give the same image, but keypoints 1 px apart. elastic() cuts off the fraction, so even a
# displacement of zero moves keypoints. The documentation of KeyPoints names no convention.
#
# Output seen (five blurred dots; largest difference in x or y between the keypoint and the center
# of gravity of its dot, in pixels, where (0, 0) is the center of the first pixel, or its corner):
#                      center  corner
#   two flips           0.00    1.00
#   half turn           1.00    0.00
#   crop, pad           0.00    0.00
#   resize to double    0.50    0.00
#   resize to fourfold  1.50    0.00
#   resize to half      0.25    0.00
#   affine, scale 1.5   0.25    0.00
#   elastic by zero     0.70    0.80
#
# For a user: keypoints made by augmenting one image, as detectors and matchers are trained, are off
# in one direction, and a model learns the shift. Add 0.5 to keypoints before resizing, rotating or
# affine transforms and take it away after them, but not around flips; warp them yourself where the
# image goes through elastic().
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 numpy==2.4.6
"$work/venv/bin/python" - <<'PY'
from importlib.util import find_spec
from pathlib import Path

import torch

compiled = next(Path(find_spec("torchvision").origin).parent.glob("_C.*"))
try:
    torch.ops.load_library(compiled)
except OSError:
    names = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

HEIGHT, WIDTH = 60, 80
POINTS = torch.tensor([[30.0, 25.0], [48.0, 25.0], [30.0, 37.0], [48.0, 37.0], [41.3, 31.7]])
BILINEAR = InterpolationMode.BILINEAR
STILL = torch.zeros(1, HEIGHT, WIDTH, 2)  # displacements for elastic()


def grid(height, width):
    """Coordinates of pixels, the first one at (0, 0)."""
    return torch.arange(width).float()[None], torch.arange(height).float()[:, None]


def dots(points):
    x, y = grid(HEIGHT, WIDTH)
    return torch.stack([torch.exp(-((x - a) ** 2 + (y - b) ** 2) / 8) for a, b in points])


def centers(image):
    x, y = grid(*image.shape[-2:])
    image = image / image.sum((1, 2), keepdim=True)
    return torch.stack([(image * x).sum((1, 2)), (image * y).sum((1, 2))], dim=1)


CASES = {
    "two flips": (lambda t: F.vertical_flip(F.horizontal_flip(t)), 0.0, 1.0),
    "half turn": (lambda t: F.rotate(t, 180, BILINEAR), 1.0, 0.0),
    "crop, pad": (lambda t: F.pad(F.crop(t, 5, 7, 50, 60), [3, 4, 5, 6]), 0.0, 0.0),
    "resize to double": (lambda t: F.resize(t, [2 * HEIGHT, 2 * WIDTH]), 0.5, 0.0),
    "resize to fourfold": (lambda t: F.resize(t, [4 * HEIGHT, 4 * WIDTH]), 1.5, 0.0),
    "resize to half": (lambda t: F.resize(t, [HEIGHT // 2, WIDTH // 2]), 0.25, 0.0),
    "affine, scale 1.5": (lambda t: F.affine(t, 0, [0, 0], 1.5, [0, 0], BILINEAR), 0.25, 0.0),
    "elastic by zero": (lambda t: F.elastic(t, STILL, BILINEAR), 0.7, 0.8),
}
image = tv_tensors.Image(dots(POINTS))
print(f"{'':18s}  center  corner")
for name, (call, *expected) in CASES.items():
    seen = []
    moved = centers(call(image).as_subclass(torch.Tensor))
    for corner in (0.0, 0.5):
        points = tv_tensors.KeyPoints(POINTS + corner, canvas_size=(HEIGHT, WIDTH))
        off = call(points).as_subclass(torch.Tensor) - corner - moved
        seen.append(off.abs().max().item())
    print(f"{name:18s}  {seen[0]:5.2f}   {seen[1]:5.2f}")
    assert all(abs(a - b) < 0.02 for a, b in zip(seen, expected)), (name, seen)
print("as described")
PY
