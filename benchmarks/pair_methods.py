"""Whole matchers, all called alike: a threshold in, the scores of the refined matches out.

The peers have random weights: speed does not depend on them, as every matcher is told a threshold
at which it refines the same number of matches. Random features find their way between a
photograph and itself moved by one cell, so that is the pair.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from matcher.config import MatcherConfig
from matcher.network.fuse import fuse
from matcher.network.model import build_matcher
from matcher.options import PredictorOptions
from matcher.predictor import Predictor, load_matcher

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "assets" / "demo0.jpg"
ALONE = PredictorOptions(max_side=None, refine="none", zoom="off")
"""The network alone, once, at the size the images have."""
PairCall = Callable[[float], np.ndarray]
"""Matches at a threshold, returns the (M,) scores of what was refined."""


def images_of(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W) uint8 images of a size."""
    with Image.open(PHOTOGRAPH) as photograph:
        image = np.asarray(photograph.convert("L").resize((size[1], size[0])))
    return image.copy(), np.roll(image, 8, axis=1)


def ours(predictor: Predictor, size: tuple[int, int]) -> PairCall:
    image0, image1 = images_of(size)

    def call(threshold: float) -> np.ndarray:
        return predictor.match(image0, image1, threshold=threshold).scores.numpy()

    return call


def compact(size: tuple[int, int], dtype: torch.dtype, device: str) -> PairCall:
    how = {"dtype": dtype, "device": device}
    return ours(load_matcher("compact", ALONE, **how), size)


def published(size: tuple[int, int], dtype: torch.dtype, device: str) -> PairCall:
    """The QuadTree ``outdoor`` architecture."""
    model = build_matcher(MatcherConfig()).eval()
    fuse(model)
    return ours(Predictor(model, ALONE, dtype=dtype, device=device), size)


def kornia_loftr(size: tuple[int, int], dtype: torch.dtype, device: str) -> PairCall:
    from kornia.feature import LoFTR

    model: Any = LoFTR(pretrained=None).eval().to(device)
    image0, image1 = (_tensor(image).to(device) for image in images_of(size))

    def call(threshold: float) -> np.ndarray:
        model.coarse_matching.thr = threshold
        with torch.inference_mode(), _precision(dtype, device):
            return _numpy(model({"image0": image0, "image1": image1})["confidence"])

    return call


def efficient_loftr(size: tuple[int, int], dtype: torch.dtype, device: str) -> PairCall:
    """Hugging Face's; refines every cell of image 0, matched or not."""
    from transformers import (  # pyright: ignore[reportMissingImports]
        EfficientLoFTRConfig,
        EfficientLoFTRForKeypointMatching,
    )

    model: Any = EfficientLoFTRForKeypointMatching(EfficientLoFTRConfig())
    model.eval().to(device)
    pair = torch.stack([_tensor(image)[0].expand(3, -1, -1) for image in images_of(size)])

    def call(threshold: float) -> np.ndarray:
        model.config.coarse_matching_threshold = threshold
        with torch.inference_mode(), _precision(dtype, device):
            scores = _numpy(model(pixel_values=pair[None].to(device)).matching_scores[0, 0])
        return scores[scores > 0]

    return call


def opencv_sift(size: tuple[int, int], dtype: torch.dtype, device: str) -> PairCall:
    """RootSIFT with a ratio test, both ways, on the CPU in fp32; no threshold."""
    from eval.methods.base import MethodOptions
    from eval.methods.classical import RootSift

    sift = RootSift(MethodOptions(keypoints=4096, ratio=0.85))
    image0, image1 = (cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) for image in images_of(size))
    return lambda _: sift(image0, image1).scores.numpy()


METHODS: dict[str, Callable[[tuple[int, int], torch.dtype, str], PairCall]] = {
    "compact": compact,
    "published": published,
    "kornia LoFTR": kornia_loftr,
    "EfficientLoFTR": efficient_loftr,
    "OpenCV SIFT": opencv_sift,
}
QUADRATIC = {"kornia LoFTR": 5, "EfficientLoFTR": 5}
"""Copies of the fp32 (L, S) matrix that a method holds at a time, about."""


def needed_bytes(method: str, size: tuple[int, int]) -> int:
    """Least memory of the matrix of confidences."""
    cells = (size[0] // 8) * (size[1] // 8)
    return QUADRATIC.get(method, 0) * 4 * cells**2


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).float()[None, None] / 255


def _numpy(scores: Tensor) -> np.ndarray:
    return scores.float().cpu().numpy()


def _precision(dtype: torch.dtype, device: str) -> Any:
    return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype=dtype)
