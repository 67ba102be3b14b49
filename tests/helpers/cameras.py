"""Cameras of tests."""

from __future__ import annotations

import numpy as np
import torch


def a_pose(angle: float = 0.3, translation: tuple[float, ...] = (0.4, -0.1, 0.2)) -> torch.Tensor:
    T = torch.eye(4, dtype=torch.float64)
    c, s = np.cos(angle), np.sin(angle)
    T[:3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    T[:3, 3] = torch.tensor(translation)
    return T


def an_intrinsics() -> torch.Tensor:
    return torch.tensor([[500.0, 2.0, 319.5], [0, 510, 239.5], [0, 0, 1]], dtype=torch.float64)
