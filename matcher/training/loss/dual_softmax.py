"""Log-confidences of the true matches under the dual-softmax, one pair of images at a time.

`CoarseMatcher.log_confidence` gives all (B, L, S) of them and autograd keeps several matrices of
that size. The loss of the true matches needs the rows and the columns that hold one: their scores
take as much less time and memory as there are fewer matches than cells. Scores are fp32; what is
kept of them, and the two products of the gradient, use the type of autocast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from matcher.training.supervision import CoarseTargets


def true_log_confidence(
    coarse0: Tensor,
    coarse1: Tensor,
    mask0: Tensor | None,
    mask1: Tensor | None,
    temperature: float,
    targets: CoarseTargets,
) -> tuple[Tensor, Tensor]:
    """(M,) log-confidence of the true matches, (M,) index of the best partner of each `index0`.

    Args:
        coarse0: (B, C, h0, w0); coarse1: (B, C, h1, w1).
        mask0: (B, h0, w0) bool of valid cells or None; mask1: (B, h1, w1).
        temperature: of the dual-softmax.
        targets: M true matches between valid cells, ordered by batch.
    """
    scale = 1.0 / (coarse0.shape[1] * temperature)
    x0, x1 = (x.flatten(2).transpose(1, 2).float().contiguous() for x in (coarse0, coarse1))
    m0, m1 = (None if m is None else m.flatten(1) for m in (mask0, mask1))
    device = x0.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x0.dtype
    counts = torch.bincount(targets.batch, minlength=x0.shape[0]).tolist()
    true, partner = [], []
    with torch.autocast(device, enabled=False):
        x0 = x0 * scale
        pairs = zip(targets.index0.split(counts), targets.index1.split(counts), strict=True)
        for b, (i, j) in enumerate(pairs):
            valid0, valid1 = (None if m is None else m[b] for m in (m0, m1))
            along_row, best = _LogSoftmaxAt.apply(x0[b][i], x1[b], valid1, j, dtype)  # pyright: ignore
            along_column, _ = _LogSoftmaxAt.apply(x1[b][j], x0[b], valid0, i, dtype)  # pyright: ignore
            true.append(along_row + along_column)
            partner.append(best)
    return torch.cat(true), torch.cat(partner)


class _LogSoftmaxAt(Function):
    """Of the scores of queries with keys: their log-softmax at one key each, and the best key."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        valid: Tensor | None,
        index: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """queries (M, C); keys (S, C); valid (S,) bool of the keys; index (M,) of the true ones."""
        scores = queries @ keys.T
        if valid is not None:
            scores.masked_fill_(~valid, torch.finfo(scores.dtype).min)
        highest, best = scores.max(dim=1, keepdim=True)
        true = scores.gather(1, index[:, None])
        p = torch.softmax(scores, dim=1, out=scores)
        # The softmax is largest at the best, where its logarithm is exact.
        log = true - highest + p.gather(1, best).log()
        ctx.save_for_backward(queries, keys, index, p.to(dtype))
        ctx.mark_non_differentiable(best)
        return log[:, 0], best[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, index, p = ctx.saved_tensors
        weight = gradient[:, None]
        pulled = (weight * queries).to(p.dtype)
        d_queries = weight * (keys[index] - (p @ keys.to(p.dtype)).to(keys.dtype))
        d_keys = -(p.T @ pulled).to(keys.dtype)
        return d_queries, d_keys.index_add_(0, index, weight * queries), None, None, None
