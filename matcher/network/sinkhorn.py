"""Optimal transport with a dustbin row and column (Sarlin et al., SuperGlue, CVPR 2020)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sinkhorn(
    similarity: Tensor, bin_score: Tensor, iterations: int, valid: Tensor | None
) -> Tensor:
    """Log-assignment with a dustbin row and column (Sarlin et al., SuperGlue, CVPR 2020).

    Args:
        similarity: (B, L, S); bin_score: () score of the dustbins.
        valid: (B, L, S) bool of pairs that may match, or None.

    Returns:
        (B, L + 1, S + 1) log-probabilities, the dustbins last.
    """
    _, rows, columns = similarity.shape
    if valid is not None:
        similarity = similarity.masked_fill(~valid, torch.finfo(similarity.dtype).min / 2)
    scores = F.pad(similarity, (0, 1, 0, 1))
    scores[:, -1, :] = bin_score
    scores[:, :, -1] = bin_score
    norm = -math.log(rows + columns)
    log_row = scores.new_full((rows + 1,), norm)
    log_row[-1] = math.log(columns) + norm
    log_column = scores.new_full((columns + 1,), norm)
    log_column[-1] = math.log(rows) + norm
    u, v = torch.zeros_like(scores[:, :, 0]), torch.zeros_like(scores[:, 0])
    for _ in range(iterations):
        u = log_row - torch.logsumexp(scores + v[:, None], dim=2)
        v = log_column - torch.logsumexp(scores + u[:, :, None], dim=1)
    return scores + u[:, :, None] + v[:, None] - norm
