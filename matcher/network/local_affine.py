"""Affine maps of image 0 to image 1 around each match, from the matches beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBORS = 16
"""Nearest matches of a fit. On rendered warps 20 are better by 2% within 0.25 px than 12, 8 worse
by 4%; where surfaces end, the farther ones lie on another one more often."""
REACH = 40.0
"""Pixels within which a match is a neighbor at any density: five cells of the network."""
FAR = 120.0
"""Pixels within which it is one where matches are sparse; beyond, a plane is no longer likely."""
ENOUGH = 6
"""Neighbors up to which the reach grows to `FAR`: twice what an affine map needs."""
NOISE = 2.0
"""Residual in pixels at which a neighbor has half its weight: twice the error of the network."""
PRIOR = 60.0
"""Weight of the similarity in squared pixels: as one neighbor at the distance of a cell. A third
of it is as good, three times as much costs 3% within 0.25 px."""
ROUNDS = 4
"""Of reweighting; one more changes the maps by less than a thousandth."""
CHUNK = 128
"""Matches whose distances are held at a time: a strip of the image, as narrow as pays."""


def local_affines(
    points0: Tensor,
    points1: Tensor,
    *,
    near: tuple[Tensor, Tensor] | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Linear part of the map of image 0 to image 1 around each match.

    A least-squares fit to the nearest matches, reweighted by their residuals (Cauchy's weights)
    and drawn toward the similarity (turn and zoom) that most matches of the pair agree on: what
    neighbors on a line, or none, leave open is taken from it. Without agreement, or with fewer
    than six matches, it is the identity.

    Args:
        points0, points1: (M, 2) pixels of the images as the network sees them.
        near: `nearest` of `points0`, where it is known.
        weights: (M,) trust in each match as a neighbor; None: all alike.

    Returns:
        (M, 2, 2), all finite and of positive determinant.
    """
    count = len(points0)
    if count == 0:
        return points0.new_zeros(0, 2, 2)
    base = common_similarity(points0, points1)
    index, squared = near or nearest(points0)
    reach = squared[:, : ENOUGH + 1].amax(dim=1, keepdim=True).clamp(REACH**2, FAR**2)
    itself = index == torch.arange(count, device=index.device)[:, None]
    trust = ((squared <= reach) & ~itself).to(points0.dtype)
    if weights is not None:
        trust = trust * weights[index]
    x = points0[index] - points0[:, None]
    rest = points1[index] - points1[:, None] - x @ base.T
    # A match that would double or fold what lies between is wrong, whatever the others say.
    weight = trust * (rest.square().sum(2) < (0.6 * x.norm(dim=2) + 2 * NOISE).square())
    (x, y), (dx, dy) = x.unbind(2), rest.unbind(2)
    products = torch.stack([x * x, x * y, y * y, dx * x, dx * y, dy * x, dy * y], dim=1)
    prior = points0.new_tensor([PRIOR, 0, PRIOR, 0, 0, 0, 0])
    change = base.new_zeros(count, 2, 2)
    for _ in range(ROUNDS):
        moments = (weight[:, None] * products).sum(2) + prior
        left, right = moments[:, [0, 1, 1, 2]].view(-1, 2, 2), moments[:, 3:].view(-1, 2, 2)
        change = (right[:, :, :, None] * inverse(left)[:, None]).sum(2)
        (a, b), (c, d) = (row.unbind(1) for row in change[..., None].unbind(1))
        residual = (dx - a * x - b * y).square() + (dy - c * x - d * y).square()
        weight = trust / (1 + residual / NOISE**2)
    affine = base + change
    ratio = determinant(affine) / determinant(base)
    return torch.where(((ratio > 0.2) & (ratio < 5))[:, None, None], affine, base)


def nearest(points: Tensor, chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """(M, K) indices of the nearest of (M, 2) `points`, itself among them, and squared distances.

    Only points within `FAR` along y are looked at. K is at most `NEIGHBORS` + 1; where there are
    fewer, the distance is infinite. Points of a grid lie at equal distances: which of them count
    is settled by a sequence without direction, the same for any `chunk`.
    """
    count = len(points)
    order = points[:, 1].argsort(stable=True)
    size = min(NEIGHBORS + 1, count)
    index, squared = order.new_zeros(count, size), points.new_zeros(count, size)
    rows = torch.arange(count, device=points.device)
    # Most have all of theirs within `REACH`, which a narrow strip of the image shows.
    for reach in (REACH, FAR):
        if len(rows):
            at, squared[rows] = _nearest_in_strips(points[order], rows, reach, size, chunk)
            index[rows] = order[at]
            rows = rows[squared[rows].amax(dim=1) > REACH**2]
    back = order.argsort()
    return index[back], squared[back]


def _nearest_in_strips(
    points: Tensor, rows: Tensor, reach: float, size: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """`nearest` of the `rows` of points that are sorted along y, within `reach` along it."""
    x, y = (column.contiguous() for column in points.unbind(1))
    step = torch.arange(len(points), device=points.device).to(points.dtype) * 0.6180339887
    untie = 1 + 0.01 * step.frac()
    parts = rows.split(chunk)
    ends = torch.stack([y[part[[0, -1]]] for part in parts])
    first = torch.searchsorted(y, ends[:, 0].contiguous() - reach).tolist()
    stop = torch.searchsorted(y, ends[:, 1].contiguous() + reach, right=True).tolist()
    found = []
    for part, low, high in zip(parts, first, stop, strict=True):
        near = slice(low, high)
        apart = (x[part, None] - x[near]).square() + (y[part, None] - y[near]).square()
        apart, at = (apart * untie[near]).topk(min(size, apart.shape[1]), largest=False)
        missing = (0, size - apart.shape[1])
        found.append((F.pad(at + low, missing), F.pad(apart, missing, value=float("inf"))))
    index, squared = zip(*found, strict=True)
    return torch.cat(index), torch.cat(squared)


def common_similarity(points0: Tensor, points1: Tensor) -> Tensor:
    """(2, 2) turn and zoom from image 0 to 1 that most matches agree on; else the identity."""
    identity = torch.eye(2, dtype=points0.dtype, device=points0.device)
    half = len(points0) // 2
    # As complex numbers: how much longer, and turned by how much, the way to another match is.
    x, y = (points.roll(half, 0) - points for points in (points0, points1))
    square = x.square().sum(1)
    apart = square > 1
    if int(apart.sum()) < ENOUGH:
        return identity
    x, y, square = x[apart], y[apart], square[apart]
    real = (x * y).sum(1) / square
    imaginary = (x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]) / square
    a, b = real.median(), imaginary.median()
    zoom = torch.hypot(a, b)
    spread = torch.hypot(real - a, imaginary - b).median()
    if not bool((zoom > 0.1) & (zoom < 10) & (spread < 0.5 * zoom)):
        return identity
    return torch.stack([a, -b, b, a]).view(2, 2)


def determinant(matrices: Tensor) -> Tensor:
    """(...) of (..., 2, 2); the same bits in any batch, unlike a library's."""
    return matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]


def inverse(matrices: Tensor) -> Tensor:
    """(..., 2, 2) of (..., 2, 2), as `determinant`."""
    (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
    turned = torch.stack([d, -b, -c, a], dim=-1).view(matrices.shape)
    return turned / determinant(matrices)[..., None, None]
