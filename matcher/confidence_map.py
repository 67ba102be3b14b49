"""The confidence of one cell of image 0 against every cell of image 1, in linear memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matcher.network.coarse import CoarseMatcher
from matcher.network.dual_softmax import BLOCK_ELEMENTS


@torch.no_grad()
def confidence_row(
    matcher: CoarseMatcher,
    coarse0: Tensor,
    coarse1: Tensor,
    cell: int,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
) -> Tensor:
    """(h1, w1) confidence that a cell of image 0 matches each cell of image 1.

    Equals a row of `CoarseMatcher.log_confidence`. With the dual-softmax only blocks of rows are
    held at a time; Sinkhorn holds all pairs, as it does when matching.

    Args:
        matcher: the coarse head.
        coarse0: (1, C, h0, w0) after the transformer; coarse1: (1, C, h1, w1).
        cell: raster index of the cell of image 0.
        mask0: (1, h0, w0) bool of valid cells, None means everywhere; mask1 likewise.
    """
    size = coarse1.shape[-2:]
    if matcher.bin_score is not None:
        return matcher.log_confidence(coarse0, coarse1, mask0, mask1)[0, cell].exp().view(size)
    scale = coarse0.shape[1] ** -0.5 / math.sqrt(matcher.config.temperature)
    x0, x1 = (x[0].flatten(1).T.float() * scale for x in (coarse0, coarse1))
    rows = torch.arange(len(x0), device=x0.device)
    if mask0 is not None:
        rows = rows[mask0.flatten()]
    columns = x0.new_full((len(x1),), -math.inf)
    for some in rows.split(max(1, BLOCK_ELEMENTS // len(x1))):
        columns = torch.logaddexp(columns, (x0[some] @ x1.T).logsumexp(dim=0))
    similarity = x1 @ x0[cell]
    valid = torch.ones_like(similarity, dtype=torch.bool) if mask1 is None else mask1.flatten()
    row = similarity.masked_fill(~valid, -math.inf).log_softmax(dim=0)
    confidence = (row + similarity - columns).exp().masked_fill(~valid, 0.0)
    if mask0 is not None and not mask0.flatten()[cell]:
        confidence = torch.zeros_like(confidence)
    return confidence.view(size)
