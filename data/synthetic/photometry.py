"""From radiance to a photograph: light, vignette, tone, blur, noise and compression.

Every strength is drawn per view beforehand (`SceneBatch.light`, `.tone`, `.blur`), so that a pair
depends on (seed, epoch, index) alone. Steps that no view of the batch asks for cost nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from data.synthetic.scene import SceneBatch

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
"""Quantisation of luminance at quality 50, ITU T.81 Annex K."""


def develop(radiance: Tensor, scene: SceneBatch) -> Tensor:
    """The photographs of (B, 2, H, W) `radiance`."""
    exposure, contrast, curve, vignette, noise, noise_start, jpeg_step = scene.tone[
        ..., None, None
    ].unbind(2)
    light = F.interpolate(scene.light, radiance.shape[-2:], mode="bilinear", align_corners=True)
    light = light.mul_(exposure * contrast).mul_(falloff(radiance, vignette))
    image = torch.addcmul(0.5 - 0.5 * contrast, radiance, light).clamp_(0, 1)
    image = torch.addcmul(image, curve * image, 1 - image)
    if (scene.blur[..., 0] > 0).any():
        image = blurred(image, point_spread(scene.blur, image.shape[-1] / 256))
    image = torch.addcmul(image, noise, noise_field(noise_start, image))
    if (jpeg_step > 0).any():
        image = compressed(image.clamp_(0, 1), jpeg_step)
    return image


def falloff(image: Tensor, vignette: Tensor) -> Tensor:
    """1 at the centre, 1 - `vignette` in the corners."""
    height, width = image.shape[-2:]
    y = torch.linspace(-1, 1, height, device=image.device)[:, None]
    x = torch.linspace(-1, 1, width, device=image.device)
    return 1 - vignette * ((x * x + y * y) / 2)


def point_spread(blur: Tensor, scale: float) -> Tensor:
    """(B, 2, k, k) Gaussians of (B, 2, 3) `SceneBatch.blur`, `scale` times as wide; of a sharp view
    the middle alone is not 0."""
    along, across, angle = blur[..., None, None].unbind(2)
    sharp = along == 0
    along, across = ((scale * side).clamp(min=SHARPEST) for side in (along, across))
    reach = math.ceil(2.5 * WIDEST * scale)
    steps = torch.arange(-reach, reach + 1, device=blur.device)
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
        parts = [source[i : i + height * width] for i in offset.flatten().tolist()]
        return torch.stack(parts).view_as(image)
    pixel = torch.arange(height * width, device=image.device).view(height, width)
    return source[offset + pixel]


@lru_cache(maxsize=4)
def normal_values(device: torch.device, repeats: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NOISE_LENGTH, generator=generator).repeat(repeats).to(device)


def compressed(image: Tensor, step: Tensor) -> Tensor:
    """What baseline JPEG leaves of the luminance: 8x8 DCT, quantised, inverted.

    Args:
        image: (B, 2, H, W) in [0, 1], H and W multiples of 8.
        step: (B, 2, 1, 1) scale of the quantisation table (1 is quality 50); 0 leaves the view as
            it is.
    """
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
