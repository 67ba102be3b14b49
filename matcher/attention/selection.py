"""The largest few of many scores, faster than by comparing floats, which minds NaN."""

from __future__ import annotations

import torch
from torch import Tensor

GROUPED = 32
"""Scores to one that is looked for from which groups are looked through first."""
GROUP_SIZES = (8, 4)


def largest(scores: Tensor, count: int) -> Tensor:
    """(..., count) indices of the largest of the (..., N) fp32 or fp64 scores, in any order.

    Of equal scores any may be taken.
    """
    bits = _as_integers(scores)
    size = bits.shape[-1]
    for group in GROUP_SIZES:
        if size >= GROUPED * count and size % group == 0:
            return _largest_of_groups(bits, count, group)
    return bits.topk(count, dim=-1, sorted=False).indices


def _largest_of_groups(bits: Tensor, count: int, group: int) -> Tensor:
    """The largest lie in those groups whose own largest are the largest."""
    apart = bits.shape[-1] // group
    grouped = bits.unflatten(-1, (group, apart))
    groups = grouped.amax(dim=-2).topk(count, dim=-1, sorted=False).indices
    some = grouped.gather(-1, groups.unsqueeze(-2).expand(*grouped.shape[:-1], count))
    place = some.flatten(-2).topk(count, dim=-1, sorted=False).indices
    return groups.gather(-1, place % count) + place // count * apart


def _as_integers(scores: Tensor) -> Tensor:
    """Integers in the same order: the bits of a float, those below the sign turned where it is
    set."""
    integer = torch.int32 if scores.dtype == torch.float32 else torch.int64
    bits, width = scores.view(integer), 8 * scores.element_size()
    return bits ^ ((bits >> (width - 1)) & torch.iinfo(integer).max)
