"""The network as one graph of tensors, from two images of any size to a fixed number of matches.

It is what `torch.export` and ONNX need: no sizes that depend on what the images hold, no steps in
Python. Its attention is the plain descent (`matcher.attention.reference`), its coarse matching is
exact, and it keeps the levels of the attention that were trained at every size.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from matcher.config import MatcherConfig
from matcher.network.coarse import inside_border
from matcher.network.model import FeatureMatcher
from matcher.runtime import own_settings
from matcher.structures import FeatureMaps
from matcher.validation.checked import invalid

INPUTS = ("image0", "image1", "mask0", "mask1")
OUTPUTS = ("keypoints0", "keypoints1", "scores")
LARGEST_SIDE = 1 << 14


class MatchingGraph(nn.Module):
    """Stages 1 to 5 of a matcher for one pair, its `top_k` best matches.

    Images are padded inside to the canvas of the network, by their last rows and columns. Their
    sides must be at least `least_side(config)`, so that the attention finds its top-k.
    """

    def __init__(self, model: FeatureMatcher, top_k: int) -> None:
        super().__init__()
        if model.config.coarse.match_type != "dual_softmax":
            raise invalid("coarse.match_type", model.config.coarse.match_type, "dual_softmax")
        self.model, self.top_k = model, top_k

    def forward(
        self, image0: Tensor, image1: Tensor, mask0: Tensor, mask1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best matches of a pair.

        Args:
            image0: (1, 1, H0, W0) gray in [0, 1]; image1: (1, 1, H1, W1).
            mask0: (1, H0, W0) bool, True where a pixel may match; mask1 likewise.

        Returns:
            (K, 2) and (K, 2) pixels (x, y) of the images, (K,) scores, best first; where there are
            fewer than K cells that are each other's best, the scores of the rest are 0.
        """
        model = self.model
        (image0, cells0), (image1, cells1) = self.pad(image0, mask0), self.pad(image1, mask1)
        features0, features1 = model.extract(image0), model.extract(image1)
        coarse0, coarse1 = model.position(features0.coarse), model.position(features1.coarse)
        coarse0, coarse1 = model.transformer(coarse0, coarse1, cells0, cells1)
        index0, index1, score = self.candidates(coarse0, coarse1, cells0, cells1)
        offset = self.refine(features0, features1, coarse0, coarse1, index0, index1)
        keypoints0 = model.cell_centers(index0, coarse0.shape[-1])
        keypoints1 = model.cell_centers(index1, coarse1.shape[-1]) + offset * model.reach
        return keypoints0, keypoints1, score

    def pad(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The image on its canvas, and the (1, h, w) mask of its cells."""
        canvas, (height, width) = self.model.canvas, image.shape[-2:]
        rows, columns = (
            torch.arange((side + canvas - 1) // canvas * canvas) for side in (height, width)
        )
        padded = image.index_select(2, rows.clamp(max=height - 1))
        padded = padded.index_select(3, columns.clamp(max=width - 1))
        y, x = rows[:: self.model.stride], columns[:: self.model.stride]
        cells = mask.index_select(1, y.clamp(max=height - 1))
        cells = cells.index_select(2, x.clamp(max=width - 1))
        return padded, cells & (y < height)[:, None] & (x < width)

    def candidates(
        self, coarse0: Tensor, coarse1: Tensor, cells0: Tensor, cells1: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(K,) cells of image 0, of image 1 and scores of the best mutual matches."""
        coarse, border = self.model.coarse, self.model.config.coarse.border
        confidence = coarse.log_confidence(coarse0, coarse1, cells0, cells1)[0]
        best, index1 = confidence.max(dim=1)
        rows = torch.arange(best.shape[0])
        allowed0, allowed1 = (
            inside_border(maps.shape[-2:], cells[0], border, maps.device)
            for maps, cells in ((coarse0, cells0), (coarse1, cells1))
        )
        mutual = (confidence.argmax(dim=0)[index1] == rows) & allowed0 & allowed1[index1]
        score = torch.where(mutual, best.exp(), 0.0)
        score, index0 = torch.cat([score, score.new_zeros(self.top_k)]).topk(self.top_k)
        index0 = index0.clamp(max=best.shape[0] - 1)
        return index0, index1[index0], score

    def refine(
        self,
        features0: FeatureMaps,
        features1: FeatureMaps,
        coarse0: Tensor,
        coarse1: Tensor,
        index0: Tensor,
        index1: Tensor,
    ) -> Tensor:
        """(K, 2) offset in image 1, in half windows."""
        fine = self.model.fine
        maps = features0.fine, features1.fine, coarse0, coarse1
        log_heatmap = fine.correlate(*maps, torch.zeros_like(index0), index0, index1)
        return fine.soft_argmax(log_heatmap)[0]


@own_settings()
def trace(model: FeatureMatcher, top_k: int) -> ExportedProgram:
    """The graph of a matcher, for images of any size from `least_side` to `LARGEST_SIDE`.

    Raises:
        UsageError: a matcher with Sinkhorn's coarse matching, which no graph of this kind holds.
    """
    graph = MatchingGraph(deepcopy(model), top_k).eval()
    # Other orders of memory than the usual one would be conditions on the sizes.
    graph.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    least = least_side(model.config)
    dims = [Dim(name, min=least, max=LARGEST_SIDE) for name in ("h0", "w0", "h1", "w1")]
    sizes = (
        *({2: height, 3: width} for height, width in (dims[:2], dims[2:])),
        *({1: height, 2: width} for height, width in (dims[:2], dims[2:])),
    )
    images = [torch.zeros(1, 1, least + 50, least + 70), torch.zeros(1, 1, least + 80, least + 60)]
    masks = [torch.ones_like(image[0], dtype=torch.bool) for image in images]
    with torch.enable_grad():  # The paths without gradients are made for PyTorch on a CPU.
        return torch.export.export(graph, (*images, *masks), dynamic_shapes=sizes, strict=False)


def least_side(config: MatcherConfig) -> int:
    """Pixels of the shortest side at which a square has enough cells for the attention."""
    cells = math.isqrt(config.transformer.topks[0] - 1) + 1
    return config.canvas * (cells - 1) + 1
