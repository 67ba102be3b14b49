"""Render the demo pair and the examples: a small gallery hung with public-domain photographs.

Every surface is a textured parallelogram. Each pixel is a ray to the nearest one, so perspective
and occlusion are exact; a lamp of finite size gives soft shadows, and it stands elsewhere in the
second view. Needs scikit-image, whose bundled photographs are the textures:

    python assets/render_demo.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import skimage.data
from PIL import Image

WIDTH, HEIGHT, FOCAL, SAMPLES = 640, 480, 520.0, 3
SMALL = 384, 288
HERE = Path(__file__).resolve().parent
WARM, COOL = (1.08, 1.0, 0.9), (0.92, 1.0, 1.1)


@dataclass(frozen=True)
class Surface:
    """The parallelogram origin + a u + b v, a and b in 0..1; meters, x right, y down, z ahead."""

    origin: np.ndarray
    u: np.ndarray
    v: np.ndarray
    texture: np.ndarray

    @property
    def normal(self) -> np.ndarray:
        n = np.cross(self.u, self.v)
        return n / np.linalg.norm(n)

    def hit(self, start: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance along `ray` (inf where missed) and (a, b) of where it meets the surface."""
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = ((self.origin - start) @ self.normal) / (ray @ self.normal)
            point = start + distance[:, None] * ray - self.origin
        a = point @ self.u / (self.u @ self.u)
        b = point @ self.v / (self.v @ self.v)
        inside = (distance > 1e-4) & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
        return np.where(inside, distance, np.inf), a, b

    def color(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Bilinear look-up, (N, 3) linear light."""
        h, w = self.texture.shape[:2]
        x, y = a * (w - 1), b * (h - 1)
        left, top = np.minimum(x.astype(int), w - 2), np.minimum(y.astype(int), h - 2)
        fx, fy = (x - left)[:, None], (y - top)[:, None]
        above = self.texture[top, left] * (1 - fx) + self.texture[top, left + 1] * fx
        below = self.texture[top + 1, left] * (1 - fx) + self.texture[top + 1, left + 1] * fx
        return above * (1 - fy) + below * fy


def linear(image: np.ndarray, tint: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return ((rgb.astype(np.float32) / 255) ** 2.2) * np.float32(tint)


def framed(image: np.ndarray, shade: tuple[float, float, float]) -> np.ndarray:
    """A photograph with a white mat inside a colored frame."""
    mat = round(0.05 * max(image.shape[:2]))
    out = cv2.copyMakeBorder(linear(image), *[mat] * 4, cv2.BORDER_CONSTANT, value=(0.75,) * 3)
    return cv2.copyMakeBorder(out, *[mat // 2] * 4, cv2.BORDER_CONSTANT, value=shade)


def plain(shade: tuple[float, float, float], seed: int) -> np.ndarray:
    """A painted surface: one shade with faint stains and grain."""
    rng = np.random.default_rng(seed)
    stains = cv2.resize(rng.normal(0, 0.05, (24, 24)).astype(np.float32), (768, 768))
    grain = cv2.GaussianBlur(rng.normal(0, 0.10, (768, 768)).astype(np.float32), (0, 0), 1.0)
    return np.clip(np.float32(shade) * (1 + stains + grain)[..., None], 0, 1).astype(np.float32)


def quad(corner: tuple, u: tuple, v: tuple, texture: np.ndarray) -> Surface:
    return Surface(*(np.array(p, dtype=np.float64) for p in (corner, u, v)), texture)


def box(center: tuple, size: tuple, degrees: float, faces: list[np.ndarray]) -> list[Surface]:
    """An upright box standing on y = center[1]; `faces`: front, left, right, top."""
    w, h, d = size
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, z = np.array([c, 0, s]), np.array([-s, 0, c])
    up = np.array([0.0, -h, 0.0])
    base = np.array(center, dtype=np.float64)
    front_left = base - x * w / 2 - z * d / 2
    back_left, front_right = front_left + z * d, front_left + x * w
    return [
        Surface(front_left + up, x * w, -up, faces[0]),
        Surface(back_left + up, -z * d, -up, faces[1]),
        Surface(front_right + up, z * d, -up, faces[2]),
        Surface(back_left + up, x * w, -z * d, faces[3]),
    ]


def room() -> list[Surface]:
    coffee, cat = skimage.data.coffee(), skimage.data.chelsea()
    stars, rocket = skimage.data.hubble_deep_field(), skimage.data.rocket()
    wood = linear(coffee[5:135, 440:600])
    gravel, brick = skimage.data.gravel(), skimage.data.brick()
    dark, oak, black = (0.05, 0.03, 0.02), (0.3, 0.16, 0.06), (0.02, 0.02, 0.02)
    surfaces = [
        quad((-2.6, -1.7, 4.2), (5.2, 0, 0), (0, 2.9, 0), plain((0.62, 0.58, 0.5), 1)),
        quad((-2.6, -1.7, 0.2), (0, 0, 4.0), (0, 2.9, 0), linear(brick.T, (1.9, 1.5, 1.3))),
        quad((2.6, -1.7, 4.2), (0, 0, -4.0), (0, 2.9, 0), plain((0.30, 0.40, 0.42), 3)),
        quad((-2.6, 1.2, 4.2), (5.2, 0, 0), (0, 0, -4.0), linear(gravel, (0.75, 0.68, 0.6))),
        quad((-2.6, -1.7, 0.2), (5.2, 0, 0), (0, 0, 4.0), plain((0.7, 0.7, 0.68), 5)),
        quad((-2.05, -0.85, 4.17), (1.5, 0, 0), (0, 1.0, 0), framed(coffee, dark)),
        quad((-0.25, -1.15, 4.17), (1.15, 0, 0), (0, 1.0, 0), framed(stars, black)),
        quad((1.15, -0.75, 4.17), (1.2, 0, 0), (0, 0.8, 0), framed(cat, oak)),
        quad(
            (2.57, -0.95, 3.9),
            (0, 0, -1.35),
            (0, 0.9, 0),
            framed(np.dstack([skimage.data.camera()] * 3), oak),
        ),
    ]
    crate = [wood, cv2.flip(wood, 0), cv2.flip(wood, 1), cv2.flip(wood, -1)]
    stone = linear(cv2.resize(skimage.data.grass()[:256, :160], (320, 512)), (1.1, 1.1, 1.05))
    plinth = [stone, linear(brick[:256, :256]), linear(brick[256:, 256:]), cv2.flip(stone, 0)]
    surfaces += box((-0.95, 1.2, 2.75), (0.7, 0.55, 0.6), 28, crate)
    surfaces += box((0.75, 1.2, 3.1), (0.6, 0.95, 0.6), -24, plinth)
    surfaces += box(
        (0.72, 0.25, 3.1), (0.3, 0.3, 0.3), 12, [linear(rocket[60:360, 170:470]), *crate[1:]]
    )
    return surfaces


def nearest(
    scene: list[Surface], start: np.ndarray, ray: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per ray: distance, color and normal of the surface it meets first."""
    best = np.full(len(ray), np.inf)
    color, normal = np.zeros((len(ray), 3), np.float32), np.zeros((len(ray), 3))
    for surface in scene:
        distance, a, b = surface.hit(start, ray)
        closer = distance < best
        best[closer] = distance[closer]
        color[closer] = surface.color(a[closer], b[closer])
        normal[closer] = surface.normal
    return best, color, normal


def lit(
    scene: list[Surface], point: np.ndarray, normal: np.ndarray, lamp: np.ndarray, count: int
) -> np.ndarray:
    """(N,) light at `point`: Lambert, falling with the square of the distance, soft shadows."""
    rng = np.random.default_rng(7)
    total = np.zeros(len(point))
    for _ in range(count):
        towards = lamp + rng.normal(0, 0.12, (len(point), 3)) - point
        reach = np.linalg.norm(towards, axis=1)
        direction = towards / np.maximum(reach, 1e-9)[:, None]
        facing = np.abs((direction * normal).sum(axis=1))
        free = np.ones(len(point), dtype=bool)
        for surface in scene:
            distance, _, _ = surface.hit(point + 1e-3 * direction, direction)
            free &= distance > reach - 2e-3
        total += free * facing / reach**2
    return total / count


def look(eye: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """(3, 3) rotation whose columns are the camera's x, y and z axes in the room."""
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    turn, _ = cv2.Rodrigues(np.array([0.0, 0.0, np.radians(roll)]))
    return np.stack([x, np.cross(z, x), z], axis=1) @ turn


class View(NamedTuple):
    """A camera, and the lamp by which it sees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    roll: float
    lamp: tuple[float, float, float]
    tint: tuple[float, float, float]


DEMO = (
    View((-0.7, -0.3, 0.25), (0.0, 0.0, 3.6), 0.5, (-1.5, -1.3, 1.2), WARM),
    View((0.85, -0.5, 0.4), (0.1, 0.1, 3.6), -3.0, (1.6, -1.2, 1.3), COOL),
)
EXAMPLES = {
    "flat": (
        View((-1.5, -0.45, 2.35), (-1.3, -0.35, 4.17), 1.0, (-1.5, -1.3, 1.2), WARM),
        View((-0.1, -0.75, 2.6), (-1.25, -0.35, 4.17), -6.0, (1.6, -1.2, 1.3), COOL),
    ),
    "wide": (
        View((-1.2, -0.4, 0.6), (0.3, 0.0, 3.4), 1.5, (-1.5, -1.3, 1.2), WARM),
        View((1.5, -0.6, 0.9), (0.3, 0.0, 3.4), -2.0, (1.6, -1.2, 1.3), COOL),
    ),
    "turned": (
        View((0.3, -0.3, 1.0), (0.4, 0.2, 3.6), 2.0, (-1.5, -1.3, 1.2), WARM),
        View((-0.2, -0.45, 0.7), (0.4, 0.1, 3.6), -1.0, (1.6, -1.2, 1.3), COOL),
    ),
}
"""Pairs of the web page: one picture on a wall, a long way between the cameras, and a camera held
upright, whose picture lies on its side."""


def render(view: View, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """The picture of a view, (width, height) pixels."""
    start, scene = np.array(view.eye, dtype=np.float64), room()
    width, height = size
    focal = FOCAL * width / WIDTH
    step = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    xs = (np.arange(width)[:, None] + step - (width - 1) / 2).ravel() / focal
    ys = (np.arange(height)[:, None] + step - (height - 1) / 2).ravel() / focal
    x, y = np.meshgrid(xs, ys)
    ray = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    ray = ray @ look(start, np.array(view.target, dtype=np.float64), view.roll).T
    distance, color, normal = nearest(scene, start, ray)
    light = lit(scene, start + distance[:, None] * ray, normal, np.array(view.lamp), 6)
    shade = color * (0.10 + 5.5 * light[:, None]) * np.float32(view.tint)
    shade *= (1 / (1 + 0.35 * (x**2 + y**2))).reshape(-1, 1)
    pixels = shade.reshape(height, SAMPLES, width, SAMPLES, 3).mean(axis=(1, 3))
    pixels = 1 - np.exp(-1.6 * pixels)
    noise = np.random.default_rng(round(1000 * abs(view.roll))).normal(0, 0.006, pixels.shape)
    return Image.fromarray((255 * np.clip(pixels ** (1 / 2.2) + noise, 0, 1)).round().astype("u1"))


def main() -> None:
    for number, view in enumerate(DEMO):
        render(view).save(HERE / f"demo{number}.jpg", quality=92)
    (HERE / "examples").mkdir(exist_ok=True)
    for name, views in EXAMPLES.items():
        for number, view in enumerate(views):
            picture = render(view, SMALL)
            if (name, number) == ("turned", 1):
                picture = picture.transpose(Image.Transpose.ROTATE_90)
            picture.save(HERE / "examples" / f"{name}{number}.jpg", quality=88)


if __name__ == "__main__":
    main()
