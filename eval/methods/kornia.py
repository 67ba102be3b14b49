"""kornia's LoFTR and DISK, with weights that lie in torch's cache already; nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from kornia.feature import DISK, LoFTR, match_smnn
from torch import Tensor, nn

from eval.methods.base import MethodOptions, MethodUnavailableError, Settings, unchanged
from eval.methods.classical import as_gray
from matcher.errors import CheckpointError, Code
from matcher.runtime import find_device
from matcher.structures import Matches


class KorniaMethod:
    """A method whose checkpoint lies in torch's cache, under `key` in `file`; without it
    `MethodUnavailableError` (E210), without the device `UsageError` (E201)."""

    name: str
    file: str
    key: str

    def __init__(self, options: MethodOptions, model: nn.Module) -> None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        if not path.is_file():
            why = f"checkpoints/{self.file} is not in torch's hub folder"
            raise MethodUnavailableError(self.name, why)
        with unchanged(path) as self.weights_sha256:
            load_into(model, path, self.key)
        self.settings: Settings = {"method": self.name, "weights_sha256": self.weights_sha256}
        self.device = str(find_device(options.device))
        self.model = model.eval().to(self.device)

    def _tensor(self, image: np.ndarray) -> Tensor:
        """(1, 3, H, W) or (1, 1, H, W) in [0, 1] of an image with 3 channels or of a gray one."""
        tensor = torch.from_numpy(np.atleast_3d(image).copy()).permute(2, 0, 1).float() / 255
        return tensor[None].to(self.device)


def load_into(model: nn.Module, path: Path, key: str) -> None:
    """Load the state dict below `key` of a checkpoint; `CheckpointError` (E501) where it cannot."""
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)[key])
    except Exception as error:  # Torch raises whatever a damaged file leads it to.
        what = f"cannot be loaded ({type(error).__name__})"
        raise CheckpointError(Code.DAMAGED_WEIGHTS, path, what, "fetch it again") from error


class KorniaLoftr(KorniaMethod):
    """Detector-free; images are cut at the right and bottom to multiples of 8."""

    key = "state_dict"

    def __init__(self, options: MethodOptions) -> None:
        super().__init__(options, LoFTR(pretrained=None))

    @torch.inference_mode()
    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        if min(*image0.shape[:2], *image1.shape[:2]) < 8:
            return Matches.empty("too_few_keypoints")
        output = self.model({"image0": self._cut(image0), "image1": self._cut(image1)})
        names = ("keypoints0", "keypoints1", "confidence")
        return Matches(*(output[name].cpu() for name in names))

    def _cut(self, image: np.ndarray) -> Tensor:
        height, width = (side // 8 * 8 for side in image.shape[:2])
        return self._tensor(as_gray(image)[:height, :width])


class LoftrOutdoor(KorniaLoftr):
    name = "kornia_loftr_outdoor"
    file = "loftr_outdoor.ckpt"


class LoftrIndoor(KorniaLoftr):
    name = "kornia_loftr_indoor"
    file = "loftr_indoor.ckpt"


class Disk(KorniaMethod):
    """DISK keypoints with mutual nearest neighbors and a ratio of 0.95 in both directions."""

    name = "kornia_disk"
    file = "depth-save.pth"
    key = "extractor"
    RATIO = 0.95
    LEAST = 16
    """Pixels of which the network makes one, too few to normalize."""

    def __init__(self, options: MethodOptions) -> None:
        super().__init__(options, DISK())
        self.keypoints = options.keypoints
        self.settings |= {"keypoints": self.keypoints, "ratio": self.RATIO}

    @torch.inference_mode()
    def __call__(self, image0: np.ndarray, image1: np.ndarray) -> Matches:
        if min(max(image.shape[:2]) for image in (image0, image1)) <= self.LEAST:
            return Matches.empty("too_few_keypoints")
        features = [
            self.model(self._tensor(image), self.keypoints, pad_if_not_divisible=True)[0]
            for image in (image0, image1)
        ]
        if min(len(f.keypoints) for f in features) < 2:
            return Matches.empty("too_few_keypoints")
        ratio, index = match_smnn(features[0].descriptors, features[1].descriptors, self.RATIO)
        return Matches(
            features[0].keypoints[index[:, 0]].cpu(),
            features[1].keypoints[index[:, 1]].cpu(),
            (1 - ratio[:, 0]).clamp(0, 1).cpu(),
        )
