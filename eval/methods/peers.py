"""XFeat and ALIKED, small published matchers, from files of their weights that a user names."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from kornia.feature import ALIKED
from torch import Tensor, nn

from eval.methods.base import MethodOptions, MethodUnavailableError, Settings, unchanged
from eval.methods.classical import as_gray
from eval.methods.xfeat import CELL, XFeatNet
from matcher.errors import CheckpointError, Code
from matcher.runtime import find_device
from matcher.structures import Matches

LEAST_SCORE = 0.05
"""Smallest score of an XFeat keypoint, as published."""
NEIGHBORHOOD = 5
"""Pixels a side in which an XFeat keypoint is the strongest, as published."""


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The tensors of an ``.npz``; `CheckpointError` (E502) where it is none of numbers."""
    try:
        with np.load(path) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (OSError, ValueError, BadZipFile, TypeError) as error:
        what = f"is no .npz of arrays ({error})"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what) from error


def load_peer(model: nn.Module, path: Path, optional: frozenset[str] = frozenset()) -> None:
    """Load an ``.npz`` of a state dict; `CheckpointError` (E502) where it does not fit."""
    arrays = read_arrays(path)
    try:
        missing, unexpected = model.load_state_dict(arrays, strict=False)
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip()
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what) from error
    odd = [*unexpected, *(name for name in missing if name not in optional)]
    if odd:
        what = f"missing or unexpected: {', '.join(odd[:4])}"
        raise CheckpointError(Code.WRONG_ARCHITECTURE, path, what)


class Peer:
    """A detector with descriptors whose weights are a file; mutual nearest neighbors match them."""

    name: str

    def __init__(self, options: MethodOptions, model: nn.Module, path: str | None) -> None:
        if path is None:
            raise MethodUnavailableError(self.name, f"{self.name}=FILE of its weights is not given")
        if not Path(path).is_file():
            raise MethodUnavailableError(self.name, f"{path} is no file")
        with unchanged(path) as self.weights_sha256:
            load_peer(model, Path(path), frozenset(("dkd.hw_grid",)))
        self.keypoints = options.keypoints
        self.settings: Settings = {
            "method": self.name,
            "weights_sha256": self.weights_sha256,
            "keypoints": self.keypoints,
        }
        self.device = str(find_device(options.device))
        self.model = model.eval().to(self.device)

    @torch.no_grad()
    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        (points0, descriptors0), (points1, descriptors1) = (
            self.describe(image) for image in (image0, image1)
        )
        if not len(points0) or not len(points1):
            return Matches.empty("too_few_keypoints")
        similarity = descriptors0 @ descriptors1.T
        score, nearest = similarity.max(dim=1)
        back = similarity.argmax(dim=0)[nearest]
        mutual = back == torch.arange(len(points0), device=back.device)
        points0, points1 = points0[mutual], points1[nearest[mutual]]
        return Matches(points0.cpu(), points1.cpu(), score[mutual].clamp(0, 1).cpu())

    def describe(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        """(N, 2) pixels of the keypoints of a (H, W, 3) uint8 image, and (N, D) descriptors of
        length 1."""
        raise NotImplementedError


class XFeat(Peer):
    """XFeat (Potje et al., CVPR 2024): keypoints where score times reliability is highest."""

    name = "xfeat"

    def __init__(self, options: MethodOptions) -> None:
        super().__init__(options, XFeatNet(), options.xfeat)

    def describe(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        gray = torch.from_numpy(as_gray(image)).float()[None, None].to(self.device) / 255
        height, width = gray.shape[-2:]
        size = [max(side // 32, 1) * 32 for side in (height, width)]
        resized = F.interpolate(gray, size, mode="bilinear", align_corners=False)
        features, logits, reliability = self.model(resized)
        chance = logits.softmax(dim=1)[:, :-1]
        chances = F.pixel_shuffle(chance, CELL)[0, 0]
        strongest = F.max_pool2d(chances[None], NEIGHBORHOOD, 1, NEIGHBORHOOD // 2)[0]
        y, x = ((chances == strongest) & (chances > LEAST_SCORE)).nonzero(as_tuple=True)
        points = torch.stack([x, y], dim=1).float()
        score = chances[y, x] * sample(reliability, points, size, "bilinear")[:, 0]
        best = score.topk(min(self.keypoints, len(score))).indices
        points = points[best]
        descriptors = F.normalize(sample(F.normalize(features), points, size, "bicubic"))
        scale = torch.tensor([width / size[1], height / size[0]], device=points.device)
        return (points + 0.5) * scale - 0.5, descriptors


def sample(values: Tensor, points: Tensor, size: list[int], mode: str) -> Tensor:
    """(N, C) of a (1, C, h, w) map over an image of (H, W) `size`, at (N, 2) pixels of it."""
    extent = torch.tensor([size[1], size[0]], device=points.device)
    grid = (points + 0.5) / extent * 2 - 1
    return F.grid_sample(values, grid[None, None], mode=mode, align_corners=False)[0, :, 0].T


class Aliked(Peer):
    """ALIKED-n16 (Zhao et al., 2023), the network of kornia."""

    name = "aliked"

    def __init__(self, options: MethodOptions) -> None:
        model = ALIKED(
            model_name="aliked-n16",
            max_num_keypoints=options.keypoints,
            detection_threshold=0.2,
        )
        super().__init__(options, model, options.aliked)

    def describe(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        color = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
        tensor = torch.from_numpy(color.copy()).permute(2, 0, 1)[None].float().to(self.device) / 255
        found = self.model(tensor)[0]
        return found.keypoints, found.descriptors
