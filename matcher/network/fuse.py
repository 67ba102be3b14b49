"""Linear steps that follow one another become one: for inference, equal up to rounding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from matcher.network.backbone import LeanMerge
from matcher.network.model import FeatureMatcher


def fuse(model: FeatureMatcher) -> None:
    """Fuse what a model in evaluation mode can do in fewer passes over its maps, in place."""
    fuse_norms(model)
    fuse_projections(model)


def fuse_norms(module: nn.Module) -> None:
    """Fuse every batch normalization with the convolution registered just before it, in place."""
    before, convolution = "", None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
            setattr(module, before, fuse_conv_bn_eval(convolution, child))
            setattr(module, name, nn.Identity())
        fuse_norms(child)
        before, convolution = name, child


@torch.no_grad()
def fuse_projections(model: FeatureMatcher) -> None:
    """Fuse the last step of each lean merge with the only linear step that reads it, in place.

    Nearest-neighbor enlargement and the gathering of windows, which may lie in between, commute
    with it, as it has no bias.
    """
    middle, last = model.backbone.merges
    if not (isinstance(middle, LeanMerge) and isinstance(last, LeanMerge)):
        return
    reduce = last.reduce.weight.flatten(1) @ _take_projection(middle)
    last.reduce.weight = nn.Parameter(reduce[:, :, None, None])
    if model.fine.use_coarse:
        of_window, of_cell = model.fine.merge.weight.chunk(2, dim=1)
        of_window = of_window @ _take_projection(last)
        model.fine.merge.weight = nn.Parameter(torch.cat([of_window, of_cell], dim=1))


def _take_projection(merge: LeanMerge) -> Tensor:
    """The (D, D) matrix of the last step of a merge, which does nothing from now on."""
    projection, merge.project = merge.project, nn.Identity()
    return projection.get_parameter("weight").flatten(1)
