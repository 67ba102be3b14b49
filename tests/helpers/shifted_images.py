"""Smooth textures that are moved exactly, and matches on them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def texture(seed: int, size: tuple[int, int] = (96, 128), cutoff: float = 0.35) -> np.ndarray:
    """(H, W) periodic noise from 0.1 to 0.9, amplitude 1 / frequency up to `cutoff` per pixel."""
    height, width = size
    noise = np.random.default_rng(seed).normal(size=size)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    radius = np.hypot(fx, fy)
    gain = np.where((radius > 0) & (radius < cutoff), 1 / np.maximum(radius, 1 / width), 0)
    image = np.fft.ifft2(np.fft.fft2(noise) * gain).real
    return 0.1 + 0.8 * (image - image.min()) / np.ptp(image)


def fourier_shift(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """The periodic image moved by (x, y): what was at p is at p + shift, without interpolation."""
    height, width = image.shape
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    phase = np.exp(-2j * np.pi * (fx * shift[0] + fy * shift[1]))
    return np.fft.ifft2(np.fft.fft2(image) * phase).real


def quantized(image: np.ndarray, bits: int) -> Tensor:
    """float32 in [0, 1] as an image of so many bits holds it."""
    white = 2**bits - 1
    return torch.from_numpy((np.clip(image, 0, 1) * white).round() / white).float()


def grid_points(size: tuple[int, int], margin: int = 16, step: int = 8) -> Tensor:
    """(M, 2) centers of cells, at least `margin` from the border."""
    height, width = size
    x, y = np.meshgrid(
        np.arange(margin, width - margin, step), np.arange(margin, height - margin, step)
    )
    return torch.from_numpy(np.stack([x.ravel(), y.ravel()], axis=1)).float()


def jitter(points: Tensor, deviation: float, seed: int = 0) -> Tensor:
    """Points with the errors of a network."""
    generator = torch.Generator().manual_seed(seed)
    return points + deviation * torch.randn(points.shape, generator=generator)


def distance(points: Tensor, truth: Tensor) -> Tensor:
    """(M,) pixels."""
    return (points - truth).norm(dim=1)
