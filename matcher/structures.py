"""The values that flow between the parts.

Letters: B batch, L/S tokens of image 0/1, C channels, H/W height and width, M matches.
Pixel coordinates are (x, y) with the center of the top-left pixel at (0, 0).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from matcher.errors import Code, UsageError

RESULTS, TRANSFORMS = "matcher.results.record", "matcher.geometry.transforms"
"""Modules of rooms above this one: imported when they are asked for."""
Self = TypeVar("Self", bound="TensorFields")


class TensorFields:
    """Moving and batching for frozen dataclasses of tensors, nested ones, lists and None."""

    def _map(self: Self, change: Any) -> Self:
        new = {}
        for f in fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                new[f.name] = change(value)
            elif isinstance(value, TensorFields):
                new[f.name] = value._map(change)
        return replace(self, **new)  # pyright: ignore[reportArgumentType, reportCallIssue]

    def _at(self: Self, index: Any) -> Self:
        """The entries of the tensors at `index`; other fields stay."""
        return self._map(lambda t: t[index])

    def to(self: Self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same values on `device`."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self: Self) -> Self:
        return self._map(lambda t: t.pin_memory())

    @classmethod
    def collate(cls: type[Self], items: Sequence[Self]) -> Self:
        """Concatenate along the batch; None stays None only if it is None in every item."""
        joined: dict[str, Any] = {}
        for f in fields(cls):  # pyright: ignore[reportArgumentType]
            values = [getattr(item, f.name) for item in items]
            first = values[0]
            if any((v is None) != (first is None) for v in values):
                raise ValueError(f"{cls.__name__}.{f.name}: None in some items of a batch only")
            if first is None:
                joined[f.name] = None
            elif isinstance(first, Tensor):
                joined[f.name] = torch.cat(values)
            elif isinstance(first, TensorFields):
                joined[f.name] = type(first).collate(values)
            else:
                joined[f.name] = tuple(entry for value in values for entry in value)
        return cls(**joined)


@dataclass(frozen=True, eq=False)
class PairGeometry(TensorFields):
    """Ground truth of a batch of pairs."""

    depth0: Tensor
    """(B, H0, W0) z-depth on the pixel grid of `ImagePair.image0`; 0 where unknown."""
    depth1: Tensor
    K0: Tensor
    """(B, 3, 3) intrinsics in pixels of the original image 0."""
    K1: Tensor
    T_0to1: Tensor
    """(B, 4, 4) takes camera-0 coordinates to camera-1 coordinates."""
    fine: Tensor | None = None
    """(B,) bool, True where depth is exact enough to teach the refinement; None means everywhere"""


@dataclass(frozen=True, eq=False)
class ImagePair(TensorFields):
    """A batch of image pairs as the network sees them."""

    image0: Tensor
    """(B, 1, H0, W0) gray in [0, 1]."""
    image1: Tensor
    scale0: Tensor
    """(B, 2) original size / network size as (x, y): original = (network + 0.5) scale - 0.5."""
    scale1: Tensor
    mask0: Tensor | None = None
    """(B, H0, W0) bool, True where the image holds content; None means everywhere."""
    mask1: Tensor | None = None
    geometry: PairGeometry | None = None
    names: tuple[tuple[str, str], ...] = ()


class FeatureMaps(NamedTuple):
    """What the backbone returns."""

    coarse: Tensor
    """(B, C, H/8, W/8)"""
    fine: Tensor
    """(B, D, H/2, W/2)"""


class CoarseMatches(NamedTuple):
    """Matched cells of a batch, in coordinate form."""

    batch: Tensor
    """(M,) int64"""
    index0: Tensor
    """(M,) int64 raster index into the L cells of image 0"""
    index1: Tensor
    """(M,) int64 raster index into the S cells of image 1"""
    score: Tensor
    """(M,) float32 confidence in [0, 1]"""


class MatcherOutput(NamedTuple):
    """What the network returns for a batch; keypoints in pixels of the network's input."""

    keypoints0: Tensor
    """(M, 2) float32"""
    keypoints1: Tensor
    """(M, 2) float32"""
    score: Tensor
    """(M,) float32"""
    batch: Tensor
    """(M,) int64"""
    deviation: Tensor
    """(M,) standard deviation of the refinement, in half windows"""
    coarse: CoarseMatches
    coarse0: Tensor
    """(B, C, h0, w0) coarse map after the transformer; coarse1 (B, C, h1, w1) likewise"""
    coarse1: Tensor

    def split(self, batch_size: int) -> list[Matches]:
        """One `Matches` for each of the `batch_size` pairs, best first."""
        out = []
        for b in range(batch_size):
            of_pair = self.batch == b
            pair = Matches(self.keypoints0[of_pair], self.keypoints1[of_pair], self.score[of_pair])
            out.append(pair.top(None))
        return out


class TrainingOutput(NamedTuple):
    """What the network returns for a batch whose true matches are known."""

    features0: FeatureMaps
    """Of image 0, from the backbone; `features1` of image 1"""
    features1: FeatureMaps
    coarse0: Tensor
    """(B, C, h0, w0) coarse map after the transformer; `coarse1` (B, C, h1, w1) likewise"""
    coarse1: Tensor
    mask0: Tensor | None
    """(B, h0, w0) bool of valid cells, None means everywhere; `mask1` likewise"""
    mask1: Tensor | None
    refined: Tensor
    """(R,) indices of the true matches that were refined"""
    log_heatmap: Tensor
    """(R, W, W) log-probability in fp32 of where in its window each of them lies, rows are y"""
    offset: Tensor
    """(R, 2) expected (x, y), in half windows"""
    deviation: Tensor
    """(R,) its standard deviation, in half windows"""


@dataclass(frozen=True, eq=False)
class Matches(TensorFields):
    """Correspondences of one pair of images: the public result.

    Coordinates are (x, y) in pixels of the original images, the center of the top-left pixel at
    (0, 0).
    """

    keypoints0: Tensor
    """(N, 2) float32"""
    keypoints1: Tensor
    """(N, 2) float32"""
    scores: Tensor
    """(N,) float32 in [0, 1]"""
    reason: str = ""
    """Why there can be no match, such as ``too_small``; empty otherwise."""
    _: KW_ONLY
    turned: int = 0
    """Quarter turns, counterclockwise, of image 1 at which they were found (`rotate`)."""
    converged: Tensor | None = None
    """(N,) bool: the refinement by pixels found the position; None: it was not asked to"""
    correlation: Tensor | None = None
    """(N,) float32 in [-1, 1], of the pixels around both points; None likewise"""
    quality: Tensor | None = None
    """(N,) float32: how likely each is within 3 pixels of the truth; None: nothing tells it"""

    def __post_init__(self) -> None:
        required = ("keypoints0", "keypoints1", "scores")
        for name in (*required, "converged", "correlation", "quality"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) and (value is not None or name in required):
                found = f"{name} of type {type(value).__name__}"
                raise ValueError(f"Matches: {found}; expected a tensor (torch.as_tensor)")
        n = self.scores.shape[0]
        shapes = tuple(self.keypoints0.shape), tuple(self.keypoints1.shape)
        if self.scores.ndim != 1 or shapes != ((n, 2), (n, 2)):
            found = f"keypoints {shapes[0]} and {shapes[1]} with scores {tuple(self.scores.shape)}"
            raise ValueError(f"Matches: {found}; expected (N, 2), (N, 2) and (N,)")
        for name in ("converged", "correlation", "quality"):
            values = getattr(self, name)
            if values is not None and values.shape != (n,):
                raise ValueError(f"Matches: {name} {tuple(values.shape)} for {n} matches")

    @staticmethod
    def empty(reason: str = "") -> Matches:
        keypoints = torch.zeros(0, 2, dtype=torch.float32, device="cpu")
        return Matches(keypoints, keypoints.clone(), keypoints[:, 0].clone(), reason)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Matches:
        """Read the matches of a file of results; errors as `matcher.results.record.read_matches`,
        which also reads what else it holds."""
        return import_module(RESULTS).read_matches(path).matches

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file of results, .h5, .npz, .csv or .json; errors as
        `matcher.results.record.write_matches`, which can also tell of the images."""
        results = import_module(RESULTS)
        results.write_matches(path, results.MatchRecord(self))

    def __len__(self) -> int:
        return self.scores.shape[0]

    def __repr__(self) -> str:
        about = f"reason={self.reason!r}" if self.reason else "no scores"
        if len(self):
            about = f"scores {self.scores.min():.3f} to {self.scores.max():.3f}"
        about += f", turned={self.turned}" if self.turned else ""
        return f"Matches({len(self)}, {about})"

    def __getitem__(self, index: int | slice | Sequence[int] | np.ndarray | Tensor) -> Matches:
        """The matches that `index` selects: a number, a slice or indices as NumPy takes them, a
        bool mask, or a mask (N, 1) or (N,) of uint8 as OpenCV gives it.

        Raises:
            IndexError: there is no such match, or `index` is something else.
        """
        if isinstance(index, slice):
            index = range(len(self))[index]
        if not isinstance(index, Tensor):
            array = np.asarray(index)
            # PyTorch takes neither negative strides nor the other order of bytes.
            index = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
        row = index.numel() == max(index.shape, default=1)
        if not row or (index.numel() and index.is_floating_point()):
            found = f"{index.dtype} of shape {tuple(index.shape)}"
            raise IndexError(f"Matches: cannot select by {found}; give numbers, a slice or a mask")
        is_mask = index.dtype in (torch.bool, torch.uint8)
        return self._at(index.reshape(-1).to(torch.bool if is_mask else torch.int64))

    @property
    def rank(self) -> Tensor:
        """(N,) float32, larger for better ones: the quality, half of it where the refinement did
        not converge; the score where nothing tells the quality."""
        if self.quality is None or self.converged is None:
            return self.scores
        return self.quality * torch.where(self.converged, 1.0, 0.5)

    def top(self, k: int | None) -> Matches:
        """The `k` best by `rank`, or all, best first; ties keep their order.

        Raises:
            UsageError: `k` is negative (E201).
        """
        if k is not None and k < 0:
            raise UsageError(Code.INVALID_VALUE, "top", f"got {k}", "expected 0 or more, or None")
        return self[torch.argsort(self.rank, descending=True, stable=True)[:k]]

    def above(self, threshold: float) -> Matches:
        """Those with a score above `threshold`.

        Raises:
            UsageError: `threshold` is not a number (E201).
        """
        if threshold != threshold:
            raise UsageError(Code.INVALID_VALUE, "threshold", f"got {threshold}", "give a number")
        return self[self.scores > threshold]

    def joined(self, other: Matches) -> Matches:
        """These and, after them, those of another look at the same images."""
        both = {}
        for f in fields(self):
            mine, others = getattr(self, f.name), getattr(other, f.name)
            both[f.name] = torch.cat([mine, others]) if isinstance(mine, Tensor) else mine
        return Matches(**both)

    def converged_only(self) -> Matches:
        """Those whose position the refinement found: about four of five, nearly all within 1 px.

        Raises:
            UsageError: they were not refined (E201).
        """
        if self.converged is None and len(self):
            remedy = "expected photometric, for matches that are filtered by convergence"
            raise UsageError(Code.INVALID_VALUE, "refine", "got 'none'", remedy)
        return self if self.converged is None else self[self.converged]

    def transform(self, kind: str = "homography", *, threshold: float = 1.0) -> Any:
        """The `matcher.geometry.transforms.Transform` of image 0 to image 1 that most agree with.

        It knows what scikit-image, OpenCV and SimpleITK want to bring image 1 onto image 0.

        Args:
            kind: ``similarity``, ``affine`` or ``homography``.
            threshold: pixels that a match may be off.

        Returns:
            None where too few matches agree.

        Raises:
            UsageError: another kind or threshold (E201).
        """
        transforms = import_module(TRANSFORMS)
        how = transforms.Estimator(threshold=threshold)
        return transforms.estimate_transform(kind, *self.numpy()[:2], estimator=how)

    def numpy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(keypoints0, keypoints1, scores) as NumPy arrays."""
        points0, points1, scores = self.keypoints0, self.keypoints1, self.scores
        return points0.numpy(force=True), points1.numpy(force=True), scores.numpy(force=True)


@dataclass(frozen=True, eq=False)
class LocatedPoints(TensorFields):
    """Where points of image 0 lie in image 1: the public result of `Predictor.locate`.

    Coordinates as those of `Matches`.
    """

    points0: Tensor
    """(N, 2) float32, as asked for"""
    points1: Tensor
    """(N, 2) float32; the best guess for points that are not visible, NaN where there is none"""
    confidence: Tensor
    """(N,) float32 in [0, 1]: how likely the point is visible within 3 pixels of there"""

    @property
    def visible(self) -> Tensor:
        """(N,) bool: those that are more likely visible there than not"""
        return self.confidence > 0.5

    def __len__(self) -> int:
        return self.confidence.shape[0]

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """(points1, visible) as NumPy arrays."""
        return self.points1.numpy(force=True), self.visible.numpy(force=True)
