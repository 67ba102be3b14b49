"""A synthetic scene as tensors: textured rectangles and cylinders seen by two cameras.

Drawn on the CPU by `data.synthetic.dataset.SyntheticScenes`, rendered on any device by `render`.
World and cameras have x right, y down, z ahead. Letters: B batch, P rectangles, Q cylinders,
T textures, S side of a texture.

Numbers that belong together travel as the last axis of one tensor; a named tuple tells their order,
as in ``Material(*scene.rect_material.unbind(-1)).gain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from data.synthetic.photometry import Photometry, Values
from matcher.geometry.cameras import rescale_intrinsics
from matcher.structures import TensorFields


class Material(NamedTuple, Generic[Values]):
    """How a primitive looks in a view.

    Texture coordinate = scale * position + shift, where the position runs from -1 to 1 and the
    texture from 0 to 1, mirrored beyond. Its gray is gain * texture + offset.
    """

    slot: Values
    """number of the texture among those of the scene"""
    scale_u: Values
    shift_u: Values
    scale_v: Values
    shift_v: Values
    gain: Values
    offset: Values


class CylinderShape(NamedTuple, Generic[Values]):
    """How much of a cylinder there is."""

    radius: Values
    opening: Values
    """half the angle around local z, in radians"""
    half_height: Values


COUNTED = {
    "rects": (2, 0),
    "rect_material": (1, 0),
    "cylinders": (2, 1),
    "cylinder_shape": (1, 1),
    "cylinder_material": (1, 1),
    "textures": (2, 2),
}
"""Number of dimensions behind the one that counts primitives or textures, and the column of
`SceneBatch.counts` that says how many are in use."""


@dataclass(frozen=True)
class SceneBatch(TensorFields):
    """Everything `render` needs. Unused primitives are zeros, which no ray hits."""

    rects: Tensor
    """(B, P, 3, 3) columns half width, half height and center, in the world"""
    rect_material: Tensor
    """(B, 2, P, 7) of `Material`, for each view"""
    cylinders: Tensor
    """(B, Q, 3, 4) local-to-world rotation and center; the axis is local y"""
    cylinder_shape: Tensor
    """(B, Q, 3) of `CylinderShape`"""
    cylinder_material: Tensor
    """(B, 2, Q, 7) of `Material`, for each view"""
    textures: Tensor
    """(B, T, S, 3/2 S) uint8 with their mip levels, see `data.synthetic.textures.with_mips`"""
    K: Tensor
    """(B, 2, 3, 3)"""
    pose: Tensor
    """(B, 2, 4, 4) world to camera, float64"""
    photometry: Photometry
    """how both views are photographed"""
    counts: Tensor
    """(B, 3) rectangles, cylinders and textures in use"""
    size: tuple[int, int]
    """(H, W) of both views"""
    names: tuple[tuple[str, str], ...] = ()

    @classmethod
    def collate(cls, items: Sequence[SceneBatch]) -> SceneBatch:
        sizes = {item.size for item in items}
        if len(sizes) != 1:
            raise ValueError(f"SceneBatch.size: {sorted(sizes)} in one batch")
        counts = torch.cat([item.counts for item in items]).amax(0).tolist()
        fitted = [item._fitted(counts) for item in items]
        joined = super().collate(fitted)  # pyright: ignore[reportArgumentType]
        return replace(joined, size=items[0].size)

    def _fitted(self, counts: Sequence[int]) -> SceneBatch:
        """So many rectangles, cylinders and textures: zeros are appended, unused ones cut off."""
        changed: dict[str, Any] = {}
        for name, (behind, column) in COUNTED.items():
            values = getattr(self, name)
            missing = counts[column] - values.shape[-1 - behind]
            changed[name] = F.pad(values, (*(0, 0) * behind, 0, missing)) if missing else values
        return replace(self, **changed)

    def __len__(self) -> int:
        return self.rects.shape[0]

    def resized(self, size: tuple[int, int]) -> SceneBatch:
        """The same scenes seen through pictures of another size (H, W)."""
        (height, width), (h, w) = self.size, size
        if size == self.size:
            return self
        scale = torch.tensor([width / w, height / h], device=self.K.device).expand(len(self), -1)
        K = torch.stack([rescale_intrinsics(self.K[:, i], scale) for i in (0, 1)], dim=1)
        return replace(self, K=K, size=size)

    def singles(self) -> list[SceneBatch]:
        """The scenes one by one, without their unused primitives and textures."""
        alone = [self._at(slice(b, b + 1)) for b in range(len(self.counts))]
        return [
            replace(scene._fitted(counts), names=self.names[b : b + 1])
            for b, (scene, counts) in enumerate(zip(alone, self.counts.tolist(), strict=True))
        ]
