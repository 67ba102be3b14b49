"""Where things stand in a synthetic scene: a plane, a furnished room, a street, loose clutter.

Meters; x right, y down, z ahead. A layout draws primitives, how they are painted, and where the
first camera stands and looks; `data.synthetic.cameras` places the second.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator

Vector = np.ndarray
Size = tuple[float, float]
TextureKind = Literal["photo", "surface", "facade", "plain", "any"]
"""``surface`` is procedural, ``facade`` more often with windows, ``plain`` nearly empty."""
X, Y, Z = np.eye(3)


class Paint(NamedTuple):
    """What is painted on a primitive, before any lamp shines on it.

    Slot, scales and shifts are those of `data.synthetic.scene.Material`.
    """

    slot: int
    scale_u: float
    shift_u: float
    scale_v: float
    shift_v: float
    contrast: float
    brightness: float


class Rectangle(NamedTuple):
    """A flat primitive; half width x half height points out."""

    half_width: Vector
    half_height: Vector
    center: Vector
    paint: Paint


class Cylinder(NamedTuple):
    """A part of a cylinder around its local y, with its middle at local z."""

    rotation: np.ndarray
    """(3, 3) local to world"""
    center: Vector
    radius: float
    opening: float
    """half its angle in radians"""
    half_height: float
    paint: Paint


class Layout(NamedTuple):
    """A finished `Draft`: P rectangles and Q cylinders as arrays."""

    rects: np.ndarray
    """(P, 3, 3) columns half width, half height and center"""
    rect_paints: tuple[Paint, ...]
    cylinders: np.ndarray
    """(Q, 3, 4) columns of the rotation, and the center"""
    cylinder_shapes: np.ndarray
    """(Q, 3) as of `data.synthetic.scene.CylinderShape`"""
    cylinder_paints: tuple[Paint, ...]
    textures: tuple[TextureKind, ...]
    eye: Vector
    target: Vector
    low: Vector
    high: Vector


@dataclass
class Draft:
    """A scene in the making."""

    rects: list[Rectangle] = field(default_factory=list)
    cylinders: list[Cylinder] = field(default_factory=list)
    textures: tuple[TextureKind, ...] = ("photo",)
    """Kind of the texture in each slot."""
    eye: Vector = field(default_factory=lambda: np.zeros(3))
    target: Vector = field(default_factory=lambda: np.zeros(3))
    low: Vector = field(default_factory=lambda: np.full(3, -np.inf))
    """Corners of the box in which cameras may stand."""
    high: Vector = field(default_factory=lambda: np.full(3, np.inf))

    def rect(self, center: Vector, half_width: Vector, half_height: Vector, paint: Paint) -> None:
        self.rects.append(Rectangle(half_width, half_height, center, paint))

    def box(self, center: Vector, half: Vector, yaw: float, paints: list[Paint]) -> None:
        """A box without its bottom; `paints` of the top and of the four sides."""
        turn = rotation_y(yaw)
        x, y, z = (turn @ (axis * size) for axis, size in zip((X, Y, Z), half, strict=True))
        faces = (-y, x, z), (-z, x, y), (z, -x, y), (-x, -z, y), (x, z, y)
        for (normal, u, v), paint in zip(faces, paints, strict=True):
            self.rect(center + normal, u, v, paint)

    def column(self, center: Vector, yaw: float, radius: float, half: float, paint: Paint) -> None:
        self.cylinders.append(Cylinder(rotation_y(yaw), center, radius, 3.1415, half, paint))

    def finished(self) -> Layout:
        frames = [np.column_stack([part.rotation, part.center]) for part in self.cylinders]
        shapes = [(part.radius, part.opening, part.half_height) for part in self.cylinders]
        return Layout(
            rects=np.array([np.stack(rect[:3], axis=1) for rect in self.rects]),
            rect_paints=tuple(rect.paint for rect in self.rects),
            cylinders=np.array(frames).reshape(-1, 3, 4),
            cylinder_shapes=np.array(shapes).reshape(-1, 3),
            cylinder_paints=tuple(part.paint for part in self.cylinders),
            textures=self.textures,
            eye=self.eye,
            target=self.target,
            low=self.low,
            high=self.high,
        )


def rotation_y(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def random_rotation(rng: Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def whole(rng: Generator, slot: int) -> Paint:
    """Paint with one copy of a texture, perhaps mirrored."""
    flip = -1.0 if rng.random() < 0.5 else 1.0
    return Paint(slot, 0.5 * flip, 0.5, 0.5, 0.5, contrast=1.0, brightness=rng.uniform(0.6, 1.2))


def tiled(
    rng: Generator, slot: int, half: Size, pitch: float, contrast: float = 1, brightness: float = 1
) -> Paint:
    """Paint with a texture every `pitch` meters on a rectangle of `half` its width and height."""
    u, v = half[0] / pitch, half[1] / pitch
    shift_u, shift_v = u + rng.uniform(0, 2), v + rng.uniform(0, 2)
    return Paint(slot, u, shift_u, v, shift_v, contrast, brightness)


def plane_scene(rng: Generator) -> Draft:
    """One plane: a large photograph on a wall, perhaps with others beside or over it."""
    draft = Draft(textures=("photo", "any"))
    half = np.array([1.3, 1.0]) * rng.uniform(0.9, 1.1, 2)
    draft.rect(np.zeros(3), X * half[0], Y * half[1], whole(rng, 0))
    backdrop = tiled(rng, 1, (8, 6), rng.uniform(2, 5), rng.uniform(0.2, 1))
    draft.rect(0.001 * Z, X * 8, Y * 6, backdrop)
    if rng.random() < 0.3:
        draft.textures = ("photo", "any", "photo", "any")
        for i in range(int(rng.integers(1, 7))):
            size = rng.uniform(0.08, 0.4, 2)
            place = np.array([*(rng.uniform(-1, 1, 2) * half), -0.0005 * (i + 1)])
            draft.rect(place, X * size[0], Y * size[1], whole(rng, int(rng.integers(2, 4))))
    direction = rotation_y(rng.uniform(-0.6, 0.6)) @ np.array([0, rng.uniform(-0.5, 0.5), -1])
    draft.target = np.array([*(rng.uniform(-0.35, 0.35, 2) * half), 0.0])
    draft.eye = draft.target + direction * rng.uniform(1.0, 2.4)
    draft.high = np.array([np.inf, np.inf, -0.3])
    return draft


def room_scene(rng: Generator) -> Draft:
    """A room with pictures on its walls, boxes and columns on its floor."""
    plain = rng.random() < 0.5
    draft = Draft(textures=("plain" if plain else "any", "any", "photo", "photo", "any", "surface"))
    half = np.array([rng.uniform(1.5, 3.5), rng.uniform(1.15, 1.6), rng.uniform(1.8, 4.5)])
    wall_contrast = rng.uniform(0.3, 1.0) if plain else rng.uniform(0.15, 1.0)
    enclose(rng, draft, half, wall_contrast)
    for _ in range(int(rng.integers(2, 5))):
        hang(rng, draft, half)
    for _ in range(int(rng.integers(1, 5))):
        stand(rng, draft, half)
    if rng.random() < 0.35:
        radius, height = rng.uniform(0.12, 0.4), half[1] * rng.uniform(0.4, 1.0)
        place = rng.uniform(-0.7, 0.7, 3) * half
        place[1] = half[1] - height
        paint = tiled(rng, int(rng.integers(2, 6)), (3 * radius, height), rng.uniform(1, 2))
        draft.column(place, rng.uniform(-3, 3), radius, height, paint)
    draft.low, draft.high = -half + 0.35, half - 0.35
    draft.eye = rng.uniform(-0.8, 0.8, 3) * half * np.array([1, 0.5, 1])
    draft.eye = np.clip(draft.eye, draft.low, draft.high)
    if rng.random() < 0.25:
        draft.target = draft.rects[int(rng.integers(0, 4))].center + rng.normal(size=3) * 0.4
    else:
        draft.target = draft.rects[int(rng.integers(6, len(draft.rects)))].center
    return draft


def enclose(rng: Generator, draft: Draft, half: Vector, contrast: float) -> None:
    """The six inner faces of the box of half size `half`: slot 0 on the walls, 1 on the floor."""
    hx, hy, hz = half
    pitch = rng.uniform(1.2, 4)
    shades = rng.uniform(0.8, 1.6, 4)
    x, z = X * hx, Z * hz
    walls = ((z, x, hx), (-z, -x, hx), (x, -z, hz), (-x, z, hz))
    for (place, u, length), brightness in zip(walls, shades, strict=True):
        draft.rect(place, u, Y * hy, tiled(rng, 0, (length, hy), pitch, contrast, brightness))
    floor = tiled(rng, 1, (hx, hz), rng.uniform(1, 3), rng.uniform(0.2, 1.0), 0.9)
    ceiling = tiled(rng, 0, (hx, hz), pitch, 0.4 * contrast, 1.5)
    draft.rect(Y * hy, X * hx, -Z * hz, floor)
    draft.rect(-Y * hy, X * hx, Z * hz, ceiling)


def hang(rng: Generator, draft: Draft, half: Vector) -> None:
    """A picture, or a row of equal ones, 1 cm before a wall."""
    wall = draft.rects[int(rng.integers(0, 4))]
    u, center = wall.half_width, wall.center
    along, inward = u / np.linalg.norm(u), -center / np.linalg.norm(center)
    size = rng.uniform(0.15, 0.8, 2)
    reach = np.linalg.norm(u) - size[0]
    if reach < 0.1:
        return
    count = 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
    start = rng.uniform(-reach, reach)
    height = rng.uniform(-0.5, 0.3) * half[1]
    paint = whole(rng, int(rng.integers(2, 6)))
    for i in range(count):
        offset = start + i * size[0] * 2.3
        if abs(offset) <= reach:
            place = center + along * offset + Y * height + inward * 0.01
            draft.rect(place, along * size[0], Y * size[1] * 0.8, paint)


def stand(rng: Generator, draft: Draft, half: Vector) -> None:
    """A box on the floor."""
    size = np.array([rng.uniform(0.15, 0.7), rng.uniform(0.15, 0.8), rng.uniform(0.15, 0.6)])
    place = rng.uniform(-0.9, 0.9, 3) * (half - 0.2)
    place[1] = half[1] - size[1]
    slot = int(rng.integers(1, 6))
    contrast, pitch = rng.uniform(0.3, 1.0), rng.uniform(0.5, 2.0)
    x, y, z = size
    paints = [
        tiled(rng, slot, face, pitch, contrast, rng.uniform(0.6, 1.2))
        for face in ((x, z), (x, y), (x, y), (z, y), (z, y))
    ]
    draft.box(place, size, rng.uniform(-1.6, 1.6), paints)


def street_scene(rng: Generator) -> Draft:
    """A ground, houses on both sides and at the end, a sky far behind, things in the road."""
    draft = Draft(textures=("plain", "surface", "facade", "photo", "facade", "any"))
    width, length = rng.uniform(3.5, 9), rng.uniform(12, 30)
    brightness = rng.uniform(0.6, 1.1, 3)[0]
    ground = tiled(rng, 1, (60, 60), rng.uniform(2, 6), rng.uniform(0.3, 1), brightness)
    draft.rect(Y * 1.6, X * 60, -Z * 60, ground)
    draft.rect(Z * 59, X * 60, Y * 59, tiled(rng, 0, (1, 1), 2, 0.4, 1.7))
    for side in (-1.0, 1.0):
        z = rng.uniform(-8, -2)
        while z < length:
            depth, height = rng.uniform(2, 6), rng.uniform(2.5, 7)
            setback = rng.uniform(0, 1.5)
            slot = int(rng.choice([2, 2, 3, 4, 4]))
            face = tiled(rng, slot, (depth, height), rng.uniform(3, 8), 1, rng.uniform(0.6, 1.2))
            x = side * (width + setback)
            base = np.array([x, 1.6 - height, z + depth])
            draft.rect(base, -side * Z * depth, Y * height, face)
            end = tiled(rng, slot, (3, height), 5, 0.8, rng.uniform(0.5, 1.0))
            draft.rect(base + side * X * 3 - Z * depth, X * 3, Y * height, end)
            z += 2 * depth + rng.choice([0.0, rng.uniform(0.5, 3)])
    height = rng.uniform(3, 8)
    front = tiled(rng, int(rng.choice([2, 3, 4])), (15, height), rng.uniform(4, 9))
    draft.rect(np.array([0, 1.6 - height, length]), X * 15, Y * height, front)
    half = np.array([width, 1.6, 0.45 * length])
    for _ in range(int(rng.integers(0, 4))):
        first = len(draft.rects)
        stand(rng, draft, half)
        for i, rect in enumerate(draft.rects[first:], first):
            draft.rects[i] = rect._replace(center=rect.center + Z * half[2])
    if rng.random() < 0.4:
        radius, height = rng.uniform(0.3, 0.7), rng.uniform(1.0, 1.6)
        place = np.array([rng.uniform(-0.8, 0.8) * width, 1.6 - height, rng.uniform(3, length - 2)])
        paint = tiled(rng, int(rng.choice([3, 5])), (3 * radius, height), rng.uniform(1, 3))
        draft.column(place, rng.uniform(-3, 3), radius, height, paint)
    draft.low = np.array([-width + 0.5, -1.5, -6.0])
    draft.high = np.array([width - 0.5, 1.2, length - 2.5])
    draft.eye = rng.uniform([-0.7 * width, -0.6, -3], [0.7 * width, 0.4, 0.5 * length])
    aim = draft.rects[int(rng.integers(2, len(draft.rects)))].center
    draft.target = aim * np.array([1, 0.4, 1]) + rng.normal(size=3) * 0.5
    return draft


def clutter_scene(rng: Generator) -> Draft:
    """Curved sheets, boards and boxes in the air before a large backdrop."""
    draft = Draft(textures=("photo", "any", "photo", "photo", "surface", "any"))
    half = np.array([5.0, 4.0, 5.0])
    enclose(rng, draft, half, rng.uniform(0.5, 1.0))
    for _ in range(int(rng.integers(4, 11))):
        place = rng.uniform(-1, 1, 3) * np.array([2.2, 1.5, 2.2])
        slot = int(rng.integers(0, 6))
        size = rng.uniform(0.25, 1.1, 3)
        kind = rng.random()
        if kind < 0.6:
            turn = random_rotation(rng)
            draft.rect(place, turn[:, 0] * size[0], turn[:, 1] * size[1], whole(rng, slot))
        elif kind < 0.8 or len(draft.cylinders) > 2:
            paints = [whole(rng, slot) for _ in range(5)]
            draft.box(place, size * 0.6, rng.uniform(-1.6, 1.6), paints)
        else:
            radius, opening = rng.uniform(0.4, 1.5), rng.uniform(0.5, 1.5)
            turn, paint = random_rotation(rng), whole(rng, slot)
            draft.cylinders.append(Cylinder(turn, place, radius, opening, size[1], paint))
    draft.low, draft.high = -half + 0.4, half - 0.4
    direction = random_rotation(rng)[:, 0] * np.array([1, 0.5, 1])
    draft.eye = direction / np.linalg.norm(direction) * rng.uniform(2.8, 4.4)
    draft.eye = np.clip(draft.eye, draft.low, draft.high)
    draft.target = rng.normal(size=3) * 0.4
    return draft


LAYOUTS = {
    "plane": plane_scene,
    "room": room_scene,
    "street": street_scene,
    "clutter": clutter_scene,
}
