"""How near to the true match the kinds of attention look: the paper's figure, and as a number.

`python -m eval.attention_kinds.focus [key=value ...]`
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from eval.metrics import bootstrap
from eval.report.tables import markdown_table
from eval.topk_recall import Options as Scenes
from matcher.attention import Attention
from matcher.attention.dense import FullAttention, LinearAttention
from matcher.attention.focal import FocalAttention
from matcher.attention.quadtree import QuadTreeAttention
from matcher.attention.record import AttentionCall, AttentionRecorder
from matcher.attention.windows import WindowAttention
from matcher.config import TransformerConfig
from matcher.drawing.attention import draw_on_one_scale
from matcher.drawing.attention_trace import Blocks, block_boxes
from matcher.drawing.matches import write_picture
from matcher.files import make_folder, write_atomically
from matcher.images.load import read_rgb
from matcher.network.model import FeatureMatcher
from matcher.predictor import Predictor
from matcher.structures import ImagePair
from matcher.terminal.program import program
from matcher.training.supervision import supervise
from matcher.validation.checked import Name, NotNegative, Positive, checked, invalid
from matcher.validation.words import describe, options_from_words
from matcher.weights.checkpoint import load_safetensors
from matcher.weights.hub import resolve

USAGE = """\
usage: python -m eval.attention_kinds.focus [key=value ...] [--debug]

Writes focus.md: the share of a query's attention within two cells of its true match, in the cross
layers of a matcher on rendered pairs; and cross.jpg and self.jpg: what one point of a photograph
looks at, by every kind on one scale. All kinds get the queries and keys of the same weights.

options and their defaults:
{options}
"""
NEAR = 2
"""Cells, along both axes, within which a look is near."""
Kind = Callable[[TransformerConfig], Attention]


class MeansAttention(FullAttention):
    """Full attention to the means of squares of cells: PVT's reduction without its training."""

    def __init__(self, heads: int, ratio: int) -> None:
        super().__init__(heads)
        self.ratio = ratio

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        if key_mask is not None:
            raise ValueError("means of maps without masks alone")
        key, value = (F.avg_pool2d(x, self.ratio) for x in (key, value))
        return super().forward(query, key, value)


OTHERS: MappingProxyType[str, Kind] = MappingProxyType(
    {
        "quadtree_a": lambda c: tree(c, "A"),
        "quadtree_b": lambda c: tree(c, "B"),
        "full": lambda c: FullAttention(c.heads),
        "pvt": lambda c: MeansAttention(c.heads, c.reduction),
        "linear": lambda c: LinearAttention(c.heads),
    }
)
"""Kinds that can cross. ``pvt`` has means in the place of its trained convolution, ``quadtree_b``
equal weights of its levels."""
WINDOWS: MappingProxyType[str, Kind] = MappingProxyType(
    {
        "swin": lambda c: WindowAttention.from_config(replace(c, layers=("self",)), 1, 0),
        "focal": lambda c: FocalAttention.from_config(c, 1, 0),
    }
)
"""Kinds for self layers alone, untrained: without biases of offsets."""


def tree(config: TransformerConfig, variant: str) -> QuadTreeAttention:
    """QuadTree attention of a variant on the heads and lists of a configuration."""
    config = replace(config, variant=variant, coarsest_cells=0)
    return QuadTreeAttention.from_config(config, config.heads, 0)


@checked()
class FocusOptions:
    """What one call measures and draws."""

    weights: Name = "compact"
    """Weights of a matcher by name or path."""
    pairs: NotNegative = 12
    """Rendered pairs that are measured; 0: none."""
    size: Annotated[str, Field(pattern=r"^[0-9]+x[0-9]+$", description="HEIGHTxWIDTH")] = "256x320"
    """Of the rendered pairs in pixels."""
    photos: str = ""
    """Folder of photographs that paint them; empty: procedural textures."""
    queries: Positive = 48
    """Cells of each pair that are asked."""
    seed: NotNegative = 5
    """Of the rendered pairs."""
    images: tuple[Name, Name] = ("assets/demo0.jpg", "assets/demo1.jpg")
    """Photographs of the pictures; their longer side is resized to `max_side`."""
    point: tuple[float, float] | None = None
    """(x, y) of the point in pixels of the first photograph; null: its middle."""
    max_side: Positive = 512
    """Pixels of the longer side of the photographs."""
    output: Name = "outputs/attention_focus"
    """Folder of what is written."""


def weights_of(attention: Attention, call: AttentionCall, queries: Tensor) -> Tensor:
    """(H, M, S) of how an attention weighs each value for (M,) queries of a call, a batch of 1.

    In every kind a message is linear in the values, so that its derivative by them tells.
    """
    heads = int(getattr(call.attention, "heads"))  # noqa: B009
    value = call.value.detach().clone().requires_grad_()
    with torch.enable_grad():
        message = attention(call.query, call.key, value, call.query_mask, call.key_mask)
        first = message.reshape(heads, -1, message[0, 0].numel())[:, 0]  # of each head's channels
        ways = [first[:, query].sum() for query in queries]
    rows = [torch.autograd.grad(way, value, retain_graph=True)[0] for way in ways]
    shape = (heads, value.shape[1] // heads, -1)
    return torch.stack([row.view(shape)[:, 0] for row in rows], dim=1)


def finest(weights: Tensor, size: tuple[int, int], ratio: int) -> Tensor:
    """(H, M, h w) of (H, M, S) weights of squares of `ratio` cells, which share them evenly.

    Args:
        size: (h, w) of the cells.
    """
    if ratio == 1:
        return weights
    h, w = size
    squares = weights.unflatten(2, (-(-h // ratio), -(-w // ratio))) / ratio**2
    return squares.repeat_interleave(ratio, 2).repeat_interleave(ratio, 3)[..., :h, :w].flatten(2)


def near_share(weights: Tensor, matches: Tensor, columns: int) -> float:
    """Share of the weights within `NEAR` cells of the true match, mean over heads and queries.

    Args:
        weights: (H, M, S) of the cells of image 1.
        matches: (M,) raster index of the true match of each query.
        columns: of the map of image 1.
    """
    cells = torch.arange(weights.shape[2])
    near = (cells // columns - matches[:, None] // columns).abs() <= NEAR
    near &= (cells % columns - matches[:, None] % columns).abs() <= NEAR
    return float((weights * near).sum() / weights.sum())


def kinds_of(
    model: FeatureMatcher, call: AttentionCall, kinds: Mapping[str, Kind], queries: Tensor
) -> dict[str, Tensor]:
    """(H, M, cells) weights of (M,) queries: as trained, then of `kinds` where keys are cells."""
    config = model.config.transformer
    ratio = int(getattr(call.attention, "ratio", 1))
    size = (call.query.shape[-2], call.query.shape[-1])
    own = weights_of(call.attention, call, queries)
    name = f"{config.attention_of('self' if len(call.direction) == 1 else 'cross')}, as trained"
    found = {name: finest(own, size, ratio)}
    if ratio == 1:
        found |= {name: weights_of(build(config), call, queries) for name, build in kinds.items()}
    return found


def measure(model: FeatureMatcher, pair: ImagePair, queries: int) -> dict[str, list[float]]:
    """The share near the true match by kind, a number a cross layer; a batch of 1.

    Args:
        queries: cells with a match that are asked, at most, spread over the image.
    """
    targets, _ = supervise(pair, stride=model.stride, reach=float(model.stride), tolerance=0.05)
    chosen = torch.linspace(0, len(targets.index0) - 1, min(queries, len(targets.index0))).long()
    asked, matches = targets.index0[chosen], targets.index1[chosen]
    columns = targets.size1[1]
    found: dict[str, list[float]] = {}
    for call in recorded(model, pair.image0, pair.image1):
        if call.direction == "0to1":
            for name, weights in kinds_of(model, call, OTHERS, asked).items():
                found.setdefault(name, []).append(near_share(weights, matches, columns))
    alike = torch.ones(1, len(asked), targets.size1[0] * columns)
    layers = len(next(iter(found.values())))
    return {**found, "everywhere alike": [near_share(alike, matches, columns)] * layers}


@torch.no_grad()
def recorded(model: FeatureMatcher, image0: Tensor, image1: Tensor) -> tuple[AttentionCall, ...]:
    """The attention calls of two (1, 1, H, W) images of one size."""
    features0, features1 = (model.extract(image) for image in (image0, image1))
    with AttentionRecorder(model.transformer.blocks) as recorder:
        model.match(features0, features1)
    return recorder.calls


def table(pairs: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """A Markdown table of the shares in percent, with intervals from drawing pairs anew."""
    layers = len(next(iter(pairs[0].values())))
    head = ("attention", *(f"cross layer {i + 1}, % (95%)" for i in range(layers)))
    lines = [head, ("---", *["---:"] * layers)]
    for name in pairs[0]:
        cells = []
        for values in 100 * np.array([pair[name] for pair in pairs]).T:
            low, high = bootstrap(lambda drawn, values=values: values[drawn].mean(), len(pairs))
            cells.append(f"{values.mean():.1f} ({low:.1f} to {high:.1f})")
        lines.append((name, *cells))
    return markdown_table(lines)


def draw(model: FeatureMatcher, options: FocusOptions) -> dict[str, np.ndarray]:
    """Pictures by file name of what one point looks at in the last cross and self layers."""
    predictor = Predictor(model, max_side=options.max_side)
    images = [read_rgb(Path(path)) for path in options.images]
    pair = predictor.reader.read(*images)
    if not all(each.valid.all() for each in pair) or pair[0].canvas.shape != pair[1].canvas.shape:
        sides = f"photographs of one size and of multiples of {model.config.canvas} pixels"
        raise invalid("max_side", options.max_side, sides)
    height, width = images[0].shape[:2]
    x, y = options.point or ((width - 1) / 2, (height - 1) / 2)
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise invalid("point", options.point, f"(x, y) within {width} x {height} pixels")
    point = torch.tensor((x, y))
    columns = pair[0].valid.shape[1]
    centers = model.cell_centers(torch.arange(pair[0].valid.numel()), columns)
    cell = int((pair[0].to_original(centers) - point).square().sum(dim=1).argmin())
    calls = recorded(model, *(each.canvas[None] for each in pair))
    out = {}
    for direction, kinds, image in (("0to1", OTHERS, 1), ("0", {**OTHERS, **WINDOWS}, 0)):
        call = [call for call in calls if call.direction == direction][-1]
        panels = []
        for name, weights in kinds_of(model, call, kinds, torch.tensor([cell])).items():
            scores = weights[:, 0].mean(dim=0)
            boxes = block_boxes(pair[image], 1, model.stride, torch.arange(len(scores)))
            blocks = Blocks(boxes, scores.numpy(), np.zeros(len(scores), bool))
            panels.append((name, images[image], blocks))
        file = "cross.jpg" if image else "self.jpg"
        out[file] = draw_on_one_scale(images[0], point.tolist(), panels)
    return out


@program(lambda: USAGE.format(options=describe(FocusOptions)))
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = options_from_words(FocusOptions, words)
    output = Path(options.output)
    make_folder(output)
    model = load_safetensors(resolve(options.weights, offline=True))
    pictures = draw(model, options)
    for name, picture in pictures.items():
        write_picture(output / name, picture)
    if options.pairs:
        o = options
        scenes = Scenes(pairs=o.pairs, size=o.size, photos=o.photos, seed=o.seed)
        pairs = scenes.rendered(model.config.canvas)
        found = [measure(model, pair, options.queries) for pair in pairs]
        text = table(found)
        write_atomically(output / "focus.md", text.encode())
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
