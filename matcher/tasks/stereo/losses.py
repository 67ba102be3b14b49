"""What a stereo network learns from: matches and occlusion at 1/4, disparity at 1/4 and 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.tasks.stereo.matching import LEAST, expected_log_probability
from matcher.tasks.stereo.structures import StereoOutput, StereoPair

FULL_SIZE = 0.25
"""Weight of the error at full size, in pixels, beside that at 1/4, in cells."""
HIDDEN = 0.1
"""Weight of the disparity of occluded pixels, which can only be guessed."""


def stereo_loss(output: StereoOutput, pair: StereoPair) -> dict[str, Tensor]:
    """Terms whose sum is the loss.

    Returns:
        ``match``: -log of the probability at the true column of visible cells and of the dustbin
        of occluded ones; ``coarse`` and ``full``: smooth L1 of the disparity; ``occlusion``:
        binary cross-entropy. Pixels without truth take no part.
    """
    truth = _at_cells(pair.disparity, output) / 4
    hidden = _at_cells(pair.occluded, output)
    valid = _at_cells(pair.valid, output)
    visible = valid & ~hidden
    found = expected_log_probability(output.probability, truth)
    absent = output.probability[..., -1].clamp(min=LEAST).log()
    coarse = F.smooth_l1_loss(output.coarse[:, 0], truth, reduction="none")
    full = F.smooth_l1_loss(output.disparity[:, 0], pair.disparity, reduction="none")
    weight = torch.where(pair.occluded, HIDDEN, 1.0) * pair.valid
    occlusion = F.binary_cross_entropy_with_logits(
        output.occlusion[:, 0], pair.occluded.to(full.dtype), reduction="none"
    )
    return {
        "match": -_mean(torch.where(hidden, absent, found), valid),
        "coarse": _mean(coarse, visible),
        "full": FULL_SIZE * _mean(full, weight),
        "occlusion": _mean(occlusion, pair.valid),
    }


def _at_cells(x: Tensor, output: StereoOutput) -> Tensor:
    """(B, h, w) of (B, H, W) at the pixels on which the cells of 1/4 are centered, 0 beyond."""
    h, w = output.coarse.shape[-2:]
    x = x[:, ::4, ::4]
    return F.pad(x, (0, w - x.shape[-1], 0, h - x.shape[-2]))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)
