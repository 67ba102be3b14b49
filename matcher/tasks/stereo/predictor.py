"""From two images to disparity, occlusion and depth, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from matcher.errors import Code, MemoryLimitError, UsageError, out_of_memory
from matcher.images.load import ImageSource, load_image
from matcher.runtime import find_device, own_settings
from matcher.tasks.stereo.check import require_rectified
from matcher.tasks.stereo.weights import load_stereo

NOTHING_SHARED = 0.6
"""Share of occluded pixels from which two images are taken to show different things: of rendered
pairs at most 0.25 came out occluded, of unrelated views that pass the check at least 0.64."""


@dataclass(frozen=True)
class Disparity:
    """What both views of a pair tell about the left one."""

    disparity: np.ndarray
    """(H, W) float32 pixels, x_left - x_right, guessed where occluded"""
    occlusion: np.ndarray
    """(H, W) float32 probability that the right view does not show the point"""

    @property
    def occluded(self) -> np.ndarray:
        """(H, W) bool."""
        return self.occlusion > 0.5

    def depth(self, focal: float, baseline: float, offset: float = 0.0) -> np.ndarray:
        """(H, W) float32 depth in the unit of `baseline`, 0 where it is unknown.

        Args:
            focal: of the rectified cameras, pixels.
            baseline: distance of the cameras.
            offset: column of the right principal point minus that of the left one, pixels.
        """
        moved = self.disparity + np.float32(offset)
        known = (moved > 1e-3) & ~self.occluded
        return np.where(known, np.float32(focal * baseline) / np.where(known, moved, 1), 0)


class StereoPredictor:
    """A stereo network on a device.

    Args:
        weights: a file written by `matcher.tasks.stereo.weights.save_stereo`; None takes the
            bundled one.
        device: where to compute; None takes a CUDA device where there is one.

    Raises:
        UsageError, CheckpointError: the weights or the device cannot be used.
    """

    def __init__(
        self, weights: str | Path | None = None, device: str | torch.device | None = None
    ) -> None:
        self.device = find_device(device)
        self.model = load_stereo(weights).to(self.device)

    def match(self, left: ImageSource, right: ImageSource, *, check: bool = True) -> Disparity:
        """Disparity and occlusion of the left view of a rectified pair.

        Args:
            left, right: paths, arrays, tensors or pictures, as `matcher.images.load.load_image`.
            check: refuse what cannot be a rectified pair.

        Raises:
            UsageError: no rectified pair of one size (E222), or no such file (E111).
            ImageError: an image cannot be read.
            MemoryLimitError: the pair does not fit into memory (E131).
        """
        names = (_name(left, "left"), _name(right, "right"))
        views = [
            load_image(view, name=name, apply_exif=False).gray
            for view, name in zip((left, right), names, strict=True)
        ]
        if check:
            require_rectified(views[0], views[1], names)
        elif views[0].shape != views[1].shape:
            raise UsageError(Code.NOT_RECTIFIED, " and ".join(names), "views of different sizes")
        found = self._run(views, names)
        share = found.occluded.mean()
        if check and share > NOTHING_SHARED:
            what = f"{share:.0%} of the left view are not in the right one"
            remedy = "give a rectified pair of one scene, or pass check=false"
            raise UsageError(Code.NOT_RECTIFIED, " and ".join(names), what, remedy)
        return found

    @own_settings()
    def _run(self, views: list[np.ndarray], names: tuple[str, str]) -> Disparity:
        tensors = [torch.from_numpy(v)[None, None].to(self.device) for v in views]
        try:
            output = self.model(*tensors)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            size = f"{views[0].shape[1]} x {views[0].shape[0]} pixels do not fit into memory"
            raise MemoryLimitError(
                Code.OUT_OF_MEMORY, " and ".join(names), size, "give smaller images"
            ) from error
        disparity = output.disparity[0, 0].float().cpu().numpy()
        return Disparity(disparity, output.occlusion[0, 0].float().sigmoid().cpu().numpy())


def _name(source: ImageSource, default: str) -> str:
    return str(source) if isinstance(source, (str, Path)) else default
