"""Render synthetic scenes: exact ray casting of textured rectangles and cylinders, in PyTorch.

A plane seen by a pinhole is a homography of the pixel, so a rectangle costs three affine functions
of (x, y) and a comparison; no loop runs over pixels. Depth is exact. Textures are read from one
atlas with mip levels, by a single `grid_sample` for both views. V = 2 B counts views.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.develop import develop
from data.scene import SceneBatch
from matcher.structures import ImagePair, PairGeometry

MIP_LEVELS = 6


class Views(NamedTuple):
    """Cameras, (V, 3, 3) and (V, 4, 4), and the primitives each of them sees."""

    K: Tensor
    pose: Tensor
    rects: Tensor
    sheets: Tensor
    sheet_shape: Tensor


class Surface(NamedTuple):
    """What every pixel sees, (V, H, W) each."""

    inverse_depth: Tensor
    """1 / z, 0 where nothing is hit"""
    u: Tensor
    """texture coordinates, 0 to 1 inside the texture, mirrored beyond"""
    v: Tensor
    area: Tensor
    """log2 of the texture area (1 = the whole texture) under a pixel"""
    slot: Tensor
    contrast: Tensor
    bright: Tensor


@torch.no_grad()
def render(scene: SceneBatch, *, augment: bool = True) -> ImagePair:
    """Both views of every scene with their exact depth, on the device of the scene.

    On the CPU scenes are rendered one by one: unused primitives cost nothing, and a pair does not
    depend on its batch mates to the last bit.

    Args:
        scene: the batch.
        augment: False leaves out lighting, tone, blur, noise and compression.
    """
    if scene.rects.device.type != "cpu":
        return _render(scene, augment)
    return ImagePair.collate([_render(scene.single(i), augment) for i in range(len(scene))])


def _render(scene: SceneBatch, augment: bool) -> ImagePair:
    device = scene.rects.device
    y, x = (torch.arange(n, device=device, dtype=torch.float32) for n in scene.size)
    seen = trace(flatten_views(scene), scene.rect_look, scene.sheet_look, x, y)
    gray = fetch(scene.textures, seen.u, seen.v, seen.area, seen.slot)
    gray = ((gray - 0.5) * seen.contrast + 0.5) * seen.bright
    nothing = seen.inverse_depth <= 0
    shape = (len(scene), 2, *scene.size)
    depth = seen.inverse_depth.reciprocal().masked_fill(nothing, 0).view(shape)
    gray = gray.masked_fill(nothing, 0).view(shape)
    if augment:
        gray = develop(gray, scene)
    gray = gray.clamp(0, 1)
    T_0to1 = (scene.pose[:, 1] @ torch.linalg.inv(scene.pose[:, 0])).float()
    ones = torch.ones(len(scene), 2, device=device)
    return ImagePair(
        gray[:, :1].contiguous(),
        gray[:, 1:].contiguous(),
        scale0=ones,
        scale1=ones.clone(),
        geometry=PairGeometry(
            depth[:, 0].contiguous(),
            depth[:, 1].contiguous(),
            scene.K[:, 0],
            scene.K[:, 1],
            T_0to1,
        ),
        names=scene.names,
    )


def flatten_views(scene: SceneBatch) -> Views:
    def twice(values: Tensor) -> Tensor:
        return values.repeat_interleave(2, dim=0)

    return Views(
        scene.K.flatten(0, 1),
        scene.pose.flatten(0, 1),
        twice(scene.rects),
        twice(scene.sheets),
        twice(scene.sheet_shape),
    )


def trace(views: Views, rect_look: Tensor, sheet_look: Tensor, x: Tensor, y: Tensor) -> Surface:
    """The nearest surface behind each pixel of columns `x` and rows `y`.

    Args:
        views: V cameras and their primitives.
        rect_look: (B, 2, P, 7) paint as in `data.scene.LOOK`, one copy a view.
        sheet_look: (B, 2, Q, 7)
        x: (W,) pixel columns.
        y: (H,) pixel rows.
    """
    maps = plane_maps(views.rects, views.K, views.pose)
    inverse_depth, winner = nearest_plane(maps, x, y)
    seen = paint_planes(maps, rect_look.flatten(0, 1), inverse_depth, winner, x, y)
    for q in range(views.sheets.shape[1]):
        look = sheet_look.flatten(0, 1)[:, q]
        for side in (-1.0, 1.0):
            seen = add_sheet(seen, views, q, look, x, y, side)
    return seen


def plane_maps(rects: Tensor, K: Tensor, pose: Tensor) -> Tensor:
    """(V, P, 3, 3) float32 matrices from pixel (x, y, 1) to (a, b, 1) / z.

    The point at (a, b) of a rectangle is [u v c] (a, b, 1), so z (x, y, 1) = K R [u v c'] (a, b, 1)
    with c' = c + R^T t: the map is the inverse of K R [u v c'], here by cross products.
    """
    pose = pose[:, None].double()
    axes = pose[..., :3, :3] @ rects.double()
    axes[..., 2] += pose[..., :3, 3]
    u, v, c = (K[:, None].double() @ axes).unbind(-1)
    vc, cu, uv = (torch.linalg.cross(*pair) for pair in ((v, c), (c, u), (u, v)))
    determinant = (u * vc).sum(-1)[..., None, None]
    return (torch.stack([vc, cu, uv], dim=-2) / determinant).float()


def nearest_plane(maps: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(V, H, W) inverse depth, 0 where nothing is hit, and index of the rectangle in front."""
    best = x.new_zeros(maps.shape[0], y.numel(), x.numel())
    winner = torch.zeros_like(best, dtype=torch.int64)
    for p in range(maps.shape[1]):
        a, b, w = affine(maps[:, p], x, y).unbind(1)
        hit = (torch.maximum(a.abs_(), b.abs_()) <= w).logical_and_(w > best)
        best = torch.where(hit, w, best)
        winner.masked_fill_(hit, p)
    return best, winner


def affine(rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(V, N, H, W) values of the (V, N, 3) functions of (x, y, 1)."""
    along_x = rows[..., :1] * x
    along_y = rows[..., 1:2] * y + rows[..., 2:]
    return along_y[..., :, None] + along_x[..., None, :]


def paint_planes(
    maps: Tensor, look: Tensor, inverse_depth: Tensor, winner: Tensor, x: Tensor, y: Tensor
) -> Surface:
    """Look the winning rectangles up; (V, P, 7) `look`."""
    slot, su, tu, sv, tv, contrast, bright = look.unbind(-1)
    w = maps[:, :, 2]
    to_u = su[..., None] * maps[:, :, 0] + tu[..., None] * w
    to_v = sv[..., None] * maps[:, :, 1] + tv[..., None] * w
    area = torch.log2((torch.linalg.det(maps.double()).float() * su * sv).abs())
    painted = torch.stack([area, slot, contrast, bright], dim=-1)
    table = torch.cat([to_u, to_v, painted], dim=-1)
    views, count = table.shape[:2]
    offset = torch.arange(views, device=table.device)[:, None, None] * count
    index = (winner + offset).flatten()
    columns = table.view(-1, 10).t().contiguous().index_select(1, index)
    ux, uy, u1, vx, vy, v1, area, slot, contrast, bright = columns.view(10, *winner.shape)
    z = inverse_depth.reciprocal()
    y = y[:, None]
    u = (ux * x + uy * y + u1) * z
    v = (vx * x + vy * y + v1) * z
    return Surface(inverse_depth, u, v, area - 3 * inverse_depth.log2(), slot, contrast, bright)


def add_sheet(
    seen: Surface, views: Views, q: int, look: Tensor, x: Tensor, y: Tensor, side: float
) -> Surface:
    """Put the front (`side` -1) or the back (1) of the cylinders number `q` before `seen`."""
    frame, shape = views.sheets[:, q].double(), views.sheet_shape[:, q, :, None, None]
    radius, opening, half_height = shape.unbind(1)
    to_local = frame[:, :, :3].transpose(1, 2) @ views.pose[:, :3, :3].double().transpose(1, 2)
    rays = to_local @ torch.linalg.inv(views.K.double())
    eye = -to_local @ views.pose[:, :3, 3:].double()
    eye = eye - frame[:, :, :3].transpose(1, 2) @ frame[:, :, 3:]
    ox, oy, oz = eye.float()[..., None].unbind(1)
    dx, dy, dz = affine(rays.float(), x, y).unbind(1)
    a = dx * dx + dz * dz
    b = ox * dx + oz * dz
    root = (b * b - a * (ox * ox + oz * oz - radius * radius)).sqrt()
    z = (side * root - b) / a
    angle = torch.atan2(ox + z * dx, oz + z * dz) / opening
    height = (oy + z * dy) / half_height
    inside = (z > 0) & (torch.maximum(angle.abs(), height.abs()) <= 1)
    front = inside & (z * seen.inverse_depth < 1)
    slot, su, tu, sv, tv, contrast, bright = look[:, :, None, None].unbind(1)
    focal = (views.K[:, 0, 0] * views.K[:, 1, 1])[:, None, None]
    unit = (su * sv).abs() / (focal * opening * half_height)
    area = torch.log2(unit * z * z / root)
    values = (z.reciprocal(), angle * su + tu, height * sv + tv, area, slot, contrast, bright)
    return Surface(*(torch.where(front, new, old) for new, old in zip(values, seen, strict=True)))


def fetch(textures: Tensor, u: Tensor, v: Tensor, area: Tensor, slot: Tensor) -> Tensor:
    """(V, H, W) gray in [0, 1] at texture coordinates, from the mip level that fits the pixel.

    Args:
        textures: (B, T, S, S) uint8.
        u: (V, H, W) with V a multiple of B; likewise `v`, `area` (see `Surface`) and `slot`.
    """
    batch, _, side, _ = textures.shape
    atlas = mip_atlas(textures)
    level = (0.5 * area + math.log2(side)).round_().clamp_(0, MIP_LEVELS - 1).nan_to_num_(0)
    shrink = torch.exp2(-level)
    extent = side * shrink
    left = (level > 0) * float(side)
    top = (side - 2 * extent).clamp_(min=0) + slot * side
    px = left + (mirrored(u) * extent).clamp(min=0.5).minimum(extent - 0.5)
    py = top + (mirrored(v) * extent).clamp(min=0.5).minimum(extent - 0.5)
    rows, columns = atlas.shape[-2:]
    grid = torch.stack([px * (2 / columns) - 1, py * (2 / rows) - 1], dim=-1)
    grid = grid.view(batch, -1, grid.shape[-2], 2)
    return F.grid_sample(atlas, grid, align_corners=False).view(u.shape)


def mirrored(t: Tensor) -> Tensor:
    """Fold the line onto [0, 1]."""
    return (t - 2 * (t * 0.5).round()).abs()


def mip_atlas(textures: Tensor) -> Tensor:
    """(B, 1, T S, 3/2 S) in [0, 1]: the textures in a column, their halves and so on at the right."""
    batch, count, side, _ = textures.shape
    level = textures.float() / 255
    atlas = level.new_zeros(batch, count, side, side * 3 // 2)
    atlas[..., :side] = level
    top = 0
    for _ in range(MIP_LEVELS - 1):
        level = F.avg_pool2d(level, 2)
        n = level.shape[-1]
        atlas[..., top : top + n, side : side + n] = level
        top += n
    return atlas.flatten(1, 2)[:, None]
