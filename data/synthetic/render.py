"""Render synthetic scenes: exact ray casting of textured rectangles and cylinders, in PyTorch.

A plane seen by a pinhole is a homography of the pixel, so a rectangle costs three affine functions
of (x, y) and a comparison; no loop runs over pixels. Depth is exact. Textures are read from one
atlas with mip levels, by a single `grid_sample` for both views. V = 2 B counts views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.synthetic.photometry import photographed
from data.synthetic.scene import CylinderShape, Material, SceneBatch
from data.synthetic.textures import MIP_LEVELS
from matcher.structures import ImagePair, PairGeometry

Window = tuple[slice, slice]


class Views(NamedTuple):
    """Cameras, (V, 3, 3) and (V, 4, 4), and the primitives each of them sees."""

    K: Tensor
    pose: Tensor
    rects: Tensor
    cylinders: Tensor
    cylinder_shape: Tensor


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
    """texture of the scene"""
    gain: Tensor
    """gray = gain * texture + offset"""
    offset: Tensor


@torch.no_grad()
def render(scene: SceneBatch, *, augment: bool = True) -> ImagePair:
    """Both views of every scene with their exact depth, on the device of the scene.

    On the CPU scenes are rendered one by one: unused primitives cost nothing, and a pair does not
    depend on its batch mates to the last bit. Without `augment` there is no lighting, contrast,
    blur, noise and compression.
    """
    return _render(scene.singles() if scene.rects.device.type == "cpu" else [scene], augment)


def _render(scenes: Sequence[SceneBatch], augment: bool) -> ImagePair:
    seen = [radiance(scene) for scene in scenes]
    if augment:
        photometry = [scene.photometry for scene in scenes]
        seen = [(photographed(s[0], how), s[1]) for s, how in zip(seen, photometry, strict=True)]
    labeled = [as_pair(scene, *views) for scene, views in zip(scenes, seen, strict=True)]
    return ImagePair.collate(labeled)


def radiance(scene: SceneBatch) -> tuple[Tensor, Tensor]:
    """(B, 2, H, W) gray and depth of both views, 0 where nothing is hit."""
    device = scene.rects.device
    y, x = (torch.arange(n, device=device, dtype=torch.float32) for n in scene.size)
    primitives = scene.rects, scene.cylinders, scene.cylinder_shape
    of_views = (values.repeat_interleave(2, dim=0) for values in primitives)
    views = Views(scene.K.flatten(0, 1), scene.pose.flatten(0, 1), *of_views)
    seen = trace(views, scene.rect_material, scene.cylinder_material, x, y)
    gray = fetch(scene.textures, seen.u, seen.v, seen.area, seen.slot)
    gray = torch.addcmul(seen.offset, gray, seen.gain)
    nothing = seen.inverse_depth <= 0
    depth = seen.inverse_depth.reciprocal().masked_fill(nothing, 0)
    gray = gray.masked_fill(nothing, 0)
    return gray.unflatten(0, (-1, 2)), depth.unflatten(0, (-1, 2))


def as_pair(scene: SceneBatch, gray: Tensor, depth: Tensor) -> ImagePair:
    """The (B, 2, H, W) views of a scene with the truth about them."""
    image0, image1 = (image.contiguous() for image in gray.clamp(0, 1).split(1, dim=1))
    depth0, depth1 = (values.contiguous() for values in depth.unbind(1))
    T_0to1 = (scene.pose[:, 1] @ torch.linalg.inv(scene.pose[:, 0])).float()
    ones = torch.ones(len(gray), 2, device=gray.device)
    geometry = PairGeometry(depth0, depth1, scene.K[:, 0], scene.K[:, 1], T_0to1)
    return ImagePair(image0, image1, ones, ones.clone(), geometry=geometry, names=scene.names)


def trace(
    views: Views, rect_material: Tensor, cylinder_material: Tensor, x: Tensor, y: Tensor
) -> Surface:
    """The nearest surface behind each pixel of (W,) columns `x` and (H,) rows `y`; materials are
    those of `SceneBatch`."""
    maps = plane_maps(views.rects, views.K, views.pose)
    windows = pixel_windows(views, x, y) if x.device.type == "cpu" else None
    front = nearest_plane(maps, x, y, windows)
    seen = paint_planes(maps, Material(*rect_material.flatten(0, 1).unbind(-1)), *front, x, y)
    for q in range(views.cylinders.shape[1]):
        material = Material(*cylinder_material.flatten(0, 1)[:, q].unbind(-1))
        seen = add_cylinder(seen, views, q, material, x, y)
    return seen


def trace_depth(views: Views, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(V, H, W) depth behind each pixel, 0 where nothing is hit, and the number of the rectangle
    there, -1 for a cylinder."""
    inverse_depth, winner = nearest_plane(plane_maps(views.rects, views.K, views.pose), x, y)
    seen = Surface(inverse_depth, *(inverse_depth,) * 6)
    unpainted = Material(*torch.zeros(7, len(views.K)))
    for q in range(views.cylinders.shape[1]):
        seen = add_cylinder(seen, views, q, unpainted, x, y)
    winner = winner.masked_fill(seen.inverse_depth != inverse_depth, -1)
    return seen.inverse_depth.reciprocal().nan_to_num(0, 0, 0), winner


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


def pixel_windows(views: Views, x: Tensor, y: Tensor) -> list[Window]:
    """For each rectangle the rows and columns outside which no view sees it."""
    u, v, c = views.rects.double().unbind(-1)
    corners = torch.stack([c - u - v, c - u + v, c + u - v, c + u + v], dim=2)
    pose, K = views.pose[:, None], views.K[:, None].double()
    points = (corners @ pose[..., :3, :3].mT + pose[..., None, :3, 3]) @ K.mT
    depth = points[..., 2]
    pixels = points[..., :2] / depth[..., None].clamp(min=1e-3)
    ahead = (depth > 1e-3).all(dim=2)[..., None]
    low = pixels.amin(2).where(ahead, -1e9).amin(0).ceil().clamp(min=0)
    high = pixels.amax(2).where(ahead, 1e9).amax(0).floor() + 1
    bound = torch.tensor([x.numel(), y.numel()])
    spans = torch.stack([torch.minimum(low, bound), high.clamp(min=0).minimum(bound)], dim=-1)
    return [(slice(*rows), slice(*columns)) for columns, rows in spans.long().tolist()]


def nearest_plane(
    maps: Tensor, x: Tensor, y: Tensor, windows: list[Window] | None = None
) -> tuple[Tensor, Tensor]:
    """(V, H, W) inverse depth of the nearest rectangle, 0 where nothing is hit, and its index.

    `maps` are those of `plane_maps`, `windows` the rows and columns that confine each rectangle.
    """
    inverse_depth = x.new_zeros(maps.shape[0], y.numel(), x.numel())
    winner = torch.zeros_like(inverse_depth, dtype=torch.int64)
    for p in range(maps.shape[1]):
        rows, columns = windows[p] if windows else (slice(None), slice(None))
        a, b, w = affine(maps[:, p], x[columns], y[rows])
        best = inverse_depth[:, rows, columns]
        hit = (torch.maximum(a.abs_(), b.abs_()) <= w).logical_and_(w > best)
        torch.where(hit, w, best, out=best)
        winner[:, rows, columns].masked_fill_(hit, p)
    return inverse_depth, winner


def affine(rows: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """(V, H, W) values of each of the (V, N, 3) functions of (x, y, 1)."""
    along_x = (rows[..., :1] * x)[..., None, :]
    along_y = (rows[..., 1:2] * y + rows[..., 2:])[..., None]
    return tuple(along_y[:, n] + along_x[:, n] for n in range(rows.shape[1]))


def paint_planes(
    maps: Tensor, material: Material[Tensor], nearest: Tensor, winner: Tensor, x: Tensor, y: Tensor
) -> Surface:
    """Look the winning rectangles up, at inverse depth `nearest`; fields of `material` are
    (V, P)."""
    a, b, w = maps.unbind(2)
    to_u = material.scale_u[..., None] * a + material.shift_u[..., None] * w
    to_v = material.scale_v[..., None] * b + material.shift_v[..., None] * w
    stretch = (a * torch.linalg.cross(b, w)).sum(-1)
    area = torch.log2((stretch * material.scale_u * material.scale_v).abs())
    constant = torch.stack([area, material.slot, material.gain, material.offset], dim=-1)
    table = torch.cat([to_u, to_v, constant], dim=-1)
    views, count = table.shape[:2]
    first = torch.arange(views, device=table.device)[:, None, None] * count
    index = (winner + first).flatten()
    columns = table.view(-1, 10).t().contiguous().index_select(1, index)
    ux, uy, u1, vx, vy, v1, area, slot, gain, offset = columns.view(10, *winner.shape)
    z = nearest.clamp(min=1e-9).reciprocal()
    y = y[:, None]
    u = u1.addcmul_(ux, x).addcmul_(uy, y).mul_(z)
    v = v1.addcmul_(vx, x).addcmul_(vy, y).mul_(z)
    return Surface(nearest, u, v, area.add_(z.log2_(), alpha=3), slot, gain, offset)


def add_cylinder(
    seen: Surface, views: Views, q: int, material: Material[Tensor], x: Tensor, y: Tensor
) -> Surface:
    """Put the cylinders number `q` before `seen`; fields of `material` are (V,)."""
    frame = views.cylinders[:, q].double()
    shape = CylinderShape(*views.cylinder_shape[:, q, None, None].unbind(-1))
    material = Material(*(values[:, None, None] for values in material))
    to_local = frame[:, :, :3].transpose(1, 2) @ views.pose[:, :3, :3].double().transpose(1, 2)
    rays = to_local @ torch.linalg.inv(views.K.double())
    eye = -to_local @ views.pose[:, :3, 3:].double()
    eye = eye - frame[:, :, :3].transpose(1, 2) @ frame[:, :, 3:]
    ox, oy, oz = eye.float()[..., None].unbind(1)
    dx, dy, dz = affine(rays.float(), x, y)
    a = dx * dx + dz * dz
    b = ox * dx + oz * dz
    squared = b * b - a * (ox * ox + oz * oz - shape.radius * shape.radius)
    root = squared.clamp(min=1e-12).sqrt()
    focal = (views.K[:, 0, 0] * views.K[:, 1, 1])[:, None, None]
    unit = (material.scale_u * material.scale_v).abs()
    unit = unit / (focal * shape.opening * shape.half_height)
    for toward in (-root, root):
        z = (toward - b) / a
        angle = torch.atan2(ox + z * dx, oz + z * dz) / shape.opening
        height = (oy + z * dy) / shape.half_height
        inside = (squared > 0) & (z > 0) & (torch.maximum(angle.abs(), height.abs()) <= 1)
        front = inside & (z * seen.inverse_depth < 1)
        area = torch.log2(unit * z * z / root)
        u = angle * material.scale_u + material.shift_u
        v = height * material.scale_v + material.shift_v
        found = (z.reciprocal(), u, v, area, material.slot, material.gain, material.offset)
        seen = Surface(*map(torch.where, (front,) * len(found), found, seen))
    return seen


def fetch(textures: Tensor, u: Tensor, v: Tensor, area: Tensor, slot: Tensor) -> Tensor:
    """(V, H, W) gray in [0, 1] at texture coordinates, from the mip level that fits the pixel.

    Args:
        textures: (B, T, S, 3/2 S) uint8 as of `data.synthetic.textures.with_mips`.
        u: (V, H, W) with V a multiple of B; likewise `v`, `area` (see `Surface`) and `slot`.
    """
    batch, count, side, width = textures.shape
    shrink = torch.exp2(-(0.5 * area + math.log2(side)).round_().clamp_(0, MIP_LEVELS - 1))
    extent = side * shrink
    limit = extent - 0.5
    px = (mirrored(u) * extent).clamp_(min=0.5).minimum(limit).add_((shrink < 1) * float(side))
    py = (mirrored(v) * extent).clamp_(min=0.5).minimum(limit).add_(slot, alpha=side)
    py += extent.mul_(-2).add_(side).clamp_(min=0)
    grid = torch.stack([px * (2 / width) - 1, py * (2 / (count * side)) - 1], dim=-1)
    grid = grid.view(batch, -1, grid.shape[-2], 2)
    atlas = textures.float().view(batch, 1, count * side, width)
    return F.grid_sample(atlas, grid, align_corners=False).view(u.shape).div_(255)


def mirrored(t: Tensor) -> Tensor:
    """Fold the line onto [0, 1]."""
    return torch.add(t, (t * 0.5).round_(), alpha=-2).abs_()
