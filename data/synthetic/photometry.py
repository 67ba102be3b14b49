"""From radiance to a photograph: light, vignette, contrast, blur, noise and compression.

`draw_photometry` is the one description of what a strength means, for rendered scenes
(`data.synthetic.strength`) and for photographs (`data.files.augment`) alike. Everything is drawn
beforehand, so that a pair depends on (seed, epoch, index) alone; `photographed` applies it. Steps
that no view of the batch asks for cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.structures import TensorFields

Values = TypeVar("Values", float, np.ndarray, Tensor)

LIGHT_GRID = (4, 5)
"""Rows and columns of the illumination, which is smooth in between."""
SHARPEST = 0.3
"""Standard deviation, in pixels, across the line along which a view moved."""
WIDEST = 2.0
"""Largest standard deviation of a blur in a picture 256 wide."""
NOISE_LENGTH = 1 << 21
"""Values after which noise repeats; views of as many pixels see some of it twice."""
JPEG_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantization of luminance at quality 50, ITU T.81 Annex K."""


class Response(NamedTuple, Generic[Values]):
    """How a view answers to light."""

    exposure: Values
    """factor of the light"""
    contrast: Values
    """factor of the distance from middle gray"""
    curve: Values
    """bend of the gray curve, 0 for none"""
    vignette: Values
    """loss of light in the corners"""
    noise: Values
    """standard deviation"""
    noise_start: Values
    """place in the fixed sequence of noise"""
    jpeg_step: Values
    """scale of the quantization table, 0 for no compression"""


class Blur(NamedTuple, Generic[Values]):
    """The point spread of a view: a Gaussian along and across a line."""

    along: Values
    """standard deviation in pixels of a picture 256 wide; 0 for a sharp view"""
    across: Values
    angle: Values
    """of the line, in radians"""


@dataclass(frozen=True)
class Photometry(TensorFields):
    """How the two views of each pair are photographed."""

    light: Tensor
    """(B, 2, h, w) illumination, stretched over the view"""
    response: Tensor
    """(B, 2, 7) of `Response`"""
    blur: Tensor
    """(B, 2, 3) of `Blur`"""


def draw_photometry(rng: np.random.Generator, strength: float) -> Photometry:
    """What cameras, lamps and codecs do to one pair, a batch of 1; strength 0 leaves it as it is.

    The two views are drawn apart from each other.
    """
    light = np.exp(0.25 * strength * rng.normal(size=(2, *LIGHT_GRID)))
    response = [draw_response(rng, strength) for _ in range(2)]
    blur = [draw_blur(rng, strength) for _ in range(2)]
    tensors = (torch.from_numpy(np.array(values)).float() for values in (light, response, blur))
    return Photometry(*(values[None] for values in tensors))


def draw_response(rng: np.random.Generator, strength: float) -> Response[float]:
    return Response(
        exposure=float(np.exp(strength * rng.normal(0.05, 0.25))),
        contrast=1 + strength * rng.uniform(-0.3, 0.3),
        curve=strength * rng.uniform(-0.45, 0.45),
        vignette=strength * (rng.uniform(0, 0.4) if rng.random() < 0.3 else 0.0),
        noise=strength * rng.exponential(0.015),
        noise_start=float(rng.integers(0, NOISE_LENGTH)),
        jpeg_step=rng.uniform(0.2, 2.0) if strength > 0 and rng.random() < 0.2 else 0.0,
    )


def draw_blur(rng: np.random.Generator, strength: float) -> Blur[float]:
    """Sharp, out of focus, or moved."""
    kind = rng.random()
    angle, along, across = rng.uniform(0, np.pi), 0.0, 0.0
    if strength > 0 and kind < 0.2:
        along = across = rng.uniform(0.3, 1.2)
    elif strength > 0 and kind < 0.28:
        along = rng.uniform(0.8, WIDEST)
    return Blur(along, across, angle)


def photographed(radiance: Tensor, photometry: Photometry) -> Tensor:
    """The photographs of (B, 2, H, W) `radiance`, not yet clamped to [0, 1]."""
    response = Response(*photometry.response[..., None, None, :].unbind(-1))
    size = radiance.shape[-2:]
    light = F.interpolate(photometry.light, size, mode="bilinear", align_corners=True)
    light = light.mul_(response.exposure * response.contrast)
    y, x = (torch.linspace(-1, 1, n, device=radiance.device) for n in size)
    light = light.mul_(1 - response.vignette * ((x * x + (y * y)[:, None]) / 2))
    image = torch.addcmul(0.5 - 0.5 * response.contrast, radiance, light).clamp_(0, 1)
    image = torch.addcmul(image, response.curve * image, 1 - image)
    blur = Blur(*photometry.blur[..., None, None, :].unbind(-1))
    if (blur.along > 0).any():
        image = blurred(image, point_spread(blur, image.shape[-1] / 256))
    noise = noise_field(response.noise_start, image)
    image = torch.addcmul(image, response.noise, noise)
    if (response.jpeg_step > 0).any():
        image = compressed(image.clamp_(0, 1), response.jpeg_step)
    return image


def point_spread(blur: Blur[Tensor], scale: float) -> Tensor:
    """(B, 2, k, k) Gaussians of a (B, 2, 1, 1) `blur`, `scale` times as wide; of a sharp view the
    middle alone is not 0."""
    angle, sharp = blur.angle, blur.along == 0
    along, across = ((scale * side).clamp(min=SHARPEST) for side in (blur.along, blur.across))
    reach = math.ceil(2.5 * WIDEST * scale)
    steps = torch.arange(-reach, reach + 1, device=angle.device)
    y, x = steps[:, None], steps
    p, q = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    kernel = (-((p / along) ** 2 + (q / across) ** 2) / 2).exp()
    kernel = kernel / kernel.sum((-2, -1), keepdim=True)
    return torch.where(sharp, ((x == 0) & (y == 0)).to(kernel.dtype), kernel)


def blurred(image: Tensor, kernels: Tensor) -> Tensor:
    """(B, 2, H, W) with a (B, 2, k, k) point spread of its own for each view.

    By the Fourier transform: a different kernel for each channel is what convolution routines for
    the CPU are slowest at.
    """
    pad = kernels.shape[-1] // 2
    framed = F.pad(image, (pad, pad, pad, pad), mode="replicate")
    size = framed.shape[-2:]
    spectrum = torch.fft.rfft2(framed) * torch.fft.rfft2(kernels, s=size)
    return torch.fft.irfft2(spectrum, s=size)[..., 2 * pad :, 2 * pad :]


def noise_field(start: Tensor, image: Tensor) -> Tensor:
    """A stretch of one fixed sequence of standard normal values for each view."""
    height, width = image.shape[-2:]
    source = normal_values(image.device, 1 + height * width // NOISE_LENGTH)
    offset = start.long() % (len(source) - height * width)
    if image.device.type == "cpu":
        stretches = [source[i : i + height * width] for i in offset.flatten().tolist()]
        return torch.stack(stretches).view_as(image)
    pixel = torch.arange(height * width, device=image.device).view(height, width)
    return source[offset + pixel]


@lru_cache(maxsize=4)
def normal_values(device: torch.device, repeats: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NOISE_LENGTH, generator=generator).repeat(repeats).to(device)


def compressed(image: Tensor, step: Tensor) -> Tensor:
    """What baseline JPEG leaves of (B, 2, H, W) luminance in [0, 1], H and W multiples of 8: 8x8
    DCT, quantized, inverted. `step` is the (B, 2, 1, 1) scale of the quantization table (1 is
    quality 50); 0 leaves the view as it is."""
    height, width = image.shape[-2:]
    k = torch.arange(8.0, device=image.device)
    basis = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    table = torch.tensor(JPEG_LUMINANCE, device=image.device) * step[..., None, None]
    blocks = image.unflatten(2, (height // 8, 8)).unflatten(4, (width // 8, 8)).transpose(3, 4)
    coefficients = basis @ (blocks * 255 - 128) @ basis.t()
    quantum = table.clamp(min=1)
    coefficients = (coefficients / quantum).round() * quantum
    decoded = (basis.t() @ coefficients @ basis + 128) / 255
    decoded = decoded.transpose(3, 4).reshape(image.shape)
    return torch.where(step > 0, decoded, image)
