"""The matcher in the three steps of keypoint matching in Hugging Face's transformers.

    inputs = processor([[image0, image1]])
    outputs = model(**inputs)
    pairs = processor.post_process_keypoint_matching(outputs, sizes, threshold=0.2)

Keypoints come back as floats; transformers' own processors drop the fraction of a pixel
(findings/transformers_whole_pixels.sh). Relative ones count from the outer corner of the image, so
that those processors give the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matcher.images.load import ImageSource, load_image
from matcher.interop.kornia import KorniaMatcher
from matcher.network.model import FeatureMatcher
from matcher.validation.checked import invalid

Size = tuple[int, int]
"""(height, width)"""


class KeypointMatchingOutput(NamedTuple):
    """Matches of a batch, each row as long as that of the pair with the most."""

    matches: Tensor
    """(B, 2, N) int64 index of the partner in the other image, -1 beyond the matches of a pair"""
    matching_scores: Tensor
    """(B, 2, N)"""
    keypoints: Tensor
    """(B, 2, N, 2) of (x, y) from 0 to 1 over the image"""


class KeypointMatcher(nn.Module):
    """Any matcher, such as ``load_matcher("outdoor").model``."""

    def __init__(self, model: FeatureMatcher) -> None:
        super().__init__()
        self.matcher = KorniaMatcher(model)

    def forward(self, pixel_values: Tensor) -> KeypointMatchingOutput:
        """Match a batch of pairs, (B, 2, C, H, W) from 0 to 1, of one or three equal channels."""
        if pixel_values.ndim != 5 or pixel_values.shape[1] != 2:
            raise invalid("pixel_values", tuple(pixel_values.shape), "(B, 2, C, H, W)")
        gray = pixel_values[:, :, :1]
        found = self.matcher({"image0": gray[:, 0], "image1": gray[:, 1]})
        batch, sides = len(pixel_values), gray.shape[-2:]
        counts = torch.bincount(found["batch_indexes"], minlength=batch).tolist()
        most = max(counts, default=0)
        scale = torch.tensor(sides[::-1], device=gray.device)
        keypoints = gray.new_zeros(batch, 2, most, 2)
        scores, matches = gray.new_zeros(batch, 2, most), gray.new_full((batch, 2, most), -1).long()
        for b, count in enumerate(counts):
            of_pair = found["batch_indexes"] == b
            for side in (0, 1):
                points = found[f"keypoints{side}"][of_pair]
                keypoints[b, side, :count] = (points + 0.5) / scale
            scores[b, :, :count] = found["confidence"][of_pair]
            matches[b, :, :count] = torch.arange(count, device=gray.device)
        return KeypointMatchingOutput(matches, scores, keypoints)


class Processor:
    """Images to what `KeypointMatcher` takes, and its outputs to keypoints in pixels.

    Args:
        size: (height, width) that all images are resized to, as in transformers.
    """

    def __init__(self, size: Size = (480, 640)) -> None:
        self.size = size

    def __call__(self, images: Sequence[Sequence[ImageSource]]) -> dict[str, Tensor]:
        """(B, 2, 1, H, W) ``pixel_values`` of pairs of paths, arrays or pictures of Pillow, in
        their pixels as stored; errors as `matcher.images.load.load_image`."""
        pairs = [torch.stack([self._resized(image) for image in pair]) for pair in images]
        return {"pixel_values": torch.stack(pairs)}

    def post_process_keypoint_matching(
        self,
        outputs: KeypointMatchingOutput,
        target_sizes: Tensor | Sequence[Sequence[Size]],
        threshold: float = 0.0,
    ) -> list[dict[str, Tensor]]:
        """``keypoints0`` and ``keypoints1`` (M, 2) float32 in pixels of the images as they were,
        the center of the top-left one at (0, 0), and ``matching_scores`` (M,), for each pair.

        Args:
            target_sizes: (B, 2, 2) height and width of each image as it was.
            threshold: that scores must exceed.

        Raises:
            UsageError: sizes of another number of pairs (E201).
        """
        sizes = torch.as_tensor(target_sizes, device=outputs.keypoints.device)
        if sizes.shape != (len(outputs.matches), 2, 2):
            raise invalid("target_sizes", tuple(sizes.shape), f"({len(outputs.matches)}, 2, 2)")
        keypoints = outputs.keypoints * sizes.flip(-1)[:, :, None] - 0.5
        results = []
        for points, matches, scores in zip(
            keypoints, outputs.matches, outputs.matching_scores, strict=True
        ):
            kept = (scores[0] > threshold) & (matches[0] > -1)
            results.append(
                {
                    "keypoints0": points[0][kept],
                    "keypoints1": points[1][matches[0][kept]],
                    "matching_scores": scores[0][kept],
                }
            )
        return results

    def _resized(self, image: ImageSource) -> Tensor:
        gray = torch.from_numpy(load_image(image, apply_exif=False).gray)[None, None]
        return F.interpolate(gray, self.size, mode="bilinear", antialias=True)[0]
