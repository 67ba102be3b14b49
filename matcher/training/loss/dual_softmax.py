"""Log-confidences of the true matches under the dual-softmax, one pair of images at a time.

`CoarseMatcher.log_confidence` gives all (B, L, S) of them and autograd keeps several matrices of
that size. The loss of the true matches needs the normalizers of rows and columns only, and
its gradient can be formed from the similarities again: less memory and less time. Similarities
are fp32; the two products of the gradient use the type of autocast.
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
    with torch.autocast(device, enabled=False):
        return _DualSoftmax.apply(
            x0 * scale, x1, m0, m1, targets.batch, targets.index0, targets.index1, dtype
        )  # pyright: ignore[reportReturnType]


class _DualSoftmax(Function):
    """Forward keeps the normalizers; backward forms each pair's similarities again."""

    @staticmethod
    def forward(
        ctx: Any,
        x0: Tensor,
        x1: Tensor,
        mask0: Tensor | None,
        mask1: Tensor | None,
        batch: Tensor,
        index0: Tensor,
        index1: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(batch, minlength=x0.shape[0]).tolist()
        rows, columns, true, best = [], [], [], []
        for b, (i, j) in enumerate(zip(index0.split(counts), index1.split(counts), strict=True)):
            s = _similarity(x0, x1, mask0, mask1, b)
            rows.append(s.logsumexp(dim=1))
            columns.append(s.logsumexp(dim=0))
            true.append(2 * s[i, j] - rows[-1][i] - columns[-1][j])
            best.append(s.max(dim=1).indices[i])
        ctx.counts = counts
        ctx.masks = mask0, mask1
        ctx.dtype = dtype
        ctx.save_for_backward(x0, x1, index0, index1, torch.stack(rows), torch.stack(columns))
        partner = torch.cat(best)
        ctx.mark_non_differentiable(partner)
        return torch.cat(true), partner

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x0, x1, index0, index1, rows, columns = ctx.saved_tensors
        mask0, mask1 = ctx.masks
        d0, d1 = torch.empty_like(x0), torch.empty_like(x1)
        pairs = (x.split(ctx.counts) for x in (index0, index1, gradient))
        for b, (i, j, g) in enumerate(zip(*pairs, strict=True)):
            s = _similarity(x0, x1, mask0, mask1, b)
            of_row = torch.zeros_like(rows[b]).index_add_(0, i, g)
            of_column = torch.zeros_like(columns[b]).index_add_(0, j, g)
            ds = (s - rows[b][:, None]).exp_().mul_(of_row[:, None])
            ds.add_(s.sub_(columns[b]).exp_().mul_(of_column)).neg_()
            ds.view(-1).index_add_(0, i * ds.shape[1] + j, 2 * g)
            ds = ds.to(ctx.dtype)
            d0[b] = ds @ x1[b].to(ctx.dtype)
            d1[b] = ds.T @ x0[b].to(ctx.dtype)
        return d0, d1, None, None, None, None, None, None


def _similarity(
    x0: Tensor, x1: Tensor, mask0: Tensor | None, mask1: Tensor | None, b: int
) -> Tensor:
    s = x0[b] @ x1[b].T
    lowest = torch.finfo(s.dtype).min
    if mask0 is not None:
        s.masked_fill_(~mask0[b][:, None], lowest)
    if mask1 is not None:
        s.masked_fill_(~mask1[b][None], lowest)
    return s
