"""A synthetic scene as tensors: textured rectangles and curved sheets seen by two cameras.

Drawn on the CPU by `data.synthetic.dataset.SyntheticScenes`, rendered on any device by `render`.
World and cameras have x right, y down, z ahead. Letters: B batch, P rectangles, Q sheets,
T textures, S side of a texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matcher.geometry.cameras import rescale_intrinsics
from matcher.structures import TensorFields

LOOK = ("slot", "scale_u", "shift_u", "scale_v", "shift_v", "gain", "offset")
"""How a primitive is painted. Texture coordinate = scale * position + shift, where the position
runs from -1 to 1 and the texture from 0 to 1, mirrored beyond. Its gray is
gain * texture + offset; the views differ in both."""

TONE = ("exposure", "contrast", "curve", "vignette", "noise", "noise_start", "jpeg_step")
"""How a view is developed, see `data.synthetic.photometry`."""


@dataclass(frozen=True)
class SceneBatch(TensorFields):
    """Everything `render` needs. Unused primitives are zeros, which no ray hits."""

    rects: Tensor
    """(B, P, 3, 3) columns half width, half height and centre, in the world"""
    rect_look: Tensor
    """(B, 2, P, 7) as named in `LOOK`, a copy for each view"""
    sheets: Tensor
    """(B, Q, 3, 4) local-to-world rotation and centre; the axis of the cylinder is local y"""
    sheet_shape: Tensor
    """(B, Q, 3) radius, half opening angle around local z in radians, half height"""
    sheet_look: Tensor
    """(B, 2, Q, 7)"""
    textures: Tensor
    """(B, T, S, 3/2 S) uint8 with their mip levels, see `data.synthetic.textures.with_mips`"""
    K: Tensor
    """(B, 2, 3, 3)"""
    pose: Tensor
    """(B, 2, 4, 4) world to camera, float64"""
    light: Tensor
    """(B, 2, h, w) illumination, stretched over the view"""
    tone: Tensor
    """(B, 2, 7) as named in `TONE`"""
    blur: Tensor
    """(B, 2, 3) standard deviations along and across a line, in pixels of a view 256 wide, and its
    angle in radians; 0 along it for a sharp view"""
    counts: Tensor
    """(B, 3) rectangles, sheets and textures in use"""
    size: tuple[int, int]
    """(H, W) of both views"""
    names: tuple[tuple[str, str], ...] = ()

    @classmethod
    def collate(cls, items: Sequence[SceneBatch]) -> SceneBatch:
        sizes = {item.size for item in items}
        if len(sizes) != 1:
            raise ValueError(f"SceneBatch.size: {sorted(sizes)} in one batch")
        rects, sheets, textures = torch.cat([item.counts for item in items]).amax(0).tolist()
        padded = [item._padded(rects, sheets, textures) for item in items]
        joined = super().collate(padded)  # pyright: ignore[reportArgumentType]
        return replace(joined, size=items[0].size)

    def _padded(self, rects: int, sheets: int, textures: int) -> SceneBatch:
        return replace(
            self,
            rects=_grown(self.rects, 1, rects),
            rect_look=_grown(self.rect_look, 2, rects),
            sheets=_grown(self.sheets, 1, sheets),
            sheet_shape=_grown(self.sheet_shape, 1, sheets),
            sheet_look=_grown(self.sheet_look, 2, sheets),
            textures=_grown(self.textures, 1, textures),
        )

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

    def single(self, index: int) -> SceneBatch:
        """One scene, without its unused primitives and textures."""
        rects, sheets, textures = self.counts[index].tolist()
        one = self._map(lambda t: t[index : index + 1])
        return replace(
            one,
            rects=one.rects[:, :rects],
            rect_look=one.rect_look[:, :, :rects],
            sheets=one.sheets[:, :sheets],
            sheet_shape=one.sheet_shape[:, :sheets],
            sheet_look=one.sheet_look[:, :, :sheets],
            textures=one.textures[:, :textures],
            names=self.names[index : index + 1],
        )


def _grown(values: Tensor, dim: int, count: int) -> Tensor:
    """Zeros appended along `dim` up to `count` entries."""
    shape = list(values.shape)
    shape[dim] = count - shape[dim]
    return torch.cat([values, values.new_zeros(shape)], dim) if shape[dim] else values
