"""A backbone of four maps by QuadTree attention: the paper's classifiers and dense backbones."""

from __future__ import annotations

from matcher.network.pyramid.config import NAMES, PyramidConfig
from matcher.network.pyramid.model import Pyramid, build_pyramid

__all__ = ["NAMES", "Pyramid", "PyramidConfig", "build_pyramid"]
