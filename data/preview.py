"""Sheets of training pairs with some of their true matches, to look at.

    python -m data.preview output=sheet.png [data=synthetic] [count=24] [key=value ...]

Further words change the data configuration of conf/train.yaml, as in
`data.synthetic.photos=FOLDER`. Samples that cannot be read are listed beside the sheet, as
sheet_corrupt.txt.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from conf import compose
from data.config import SOURCES
from data.corrupt import collate
from data.datamodule import PairData, build_datamodule
from data.order import PairStream
from matcher.drawing.canvas import as_rgb, draw_dots, draw_lines, palette
from matcher.drawing.matches import write_picture
from matcher.errors import Code, UsageError
from matcher.structures import ImagePair
from matcher.terminal.program import program
from matcher.training.supervision import supervise
from matcher.validation.words import key_values

STRIDE = 8


def first_pairs(data: PairData, notes: Path) -> ImagePair:
    """The first batch of a run; `notes` lists samples that cannot be read."""
    config = data.config
    if config.source not in SOURCES:
        return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    pairs, order = data.files_in_order(notes)
    keys = next(iter(PairStream(order, config.batch_size)))
    return collate([pairs[key] for key in keys])


def contact_sheet(pair: ImagePair, *, columns: int = 3, lines: int = 12) -> np.ndarray:
    """(H, W, 3) RGB picture of a batch with geometry: `columns` pairs in a row, the two images of
    each side by side with `lines` of its true matches; the number at its name counts all."""
    targets, _ = supervise(pair, stride=STRIDE, reach=float(STRIDE), tolerance=0.05)
    tiles = []
    for b in range(len(pair.image0)):
        of_pair = (targets.batch == b).nonzero()[:, 0]
        drawn = of_pair[torch.linspace(0, len(of_pair) - 1, min(lines, len(of_pair))).long()]
        ends0 = _pixels(targets.index0[drawn], pair.image0)
        ends1 = _pixels(targets.index1[drawn], pair.image1)
        label = f"{pair.names[b][0]} {len(of_pair)}" if pair.names else str(len(of_pair))
        tiles.append(_tile(pair.image0[b, 0], pair.image1[b, 0], ends0, ends1, label))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _pixels(index: Tensor, image: Tensor) -> np.ndarray:
    """(N, 2) centers of the cells of an image."""
    columns = -(-image.shape[-1] // STRIDE)
    return (torch.stack([index % columns, index // columns], dim=1) * STRIDE).cpu().numpy()


def _tile(
    image0: Tensor, image1: Tensor, ends0: np.ndarray, ends1: np.ndarray, label: str
) -> np.ndarray:
    both = torch.cat([image0, image1], dim=1).cpu().numpy()
    tile = as_rgb((both * 255).round().astype(np.uint8))
    ends1 = ends1 + np.array([image0.shape[1], 0])
    colors = palette(np.linspace(0, 1, len(ends0)))
    draw_lines(tile, ends0, ends1, colors, 1)
    for ends in (ends0, ends1):
        draw_dots(tile, ends, colors, 1)
    cv2.putText(tile, label, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 0), 1)
    return tile


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    words = key_values(words)
    rest = [word for word in words if not word.startswith(("output=", "count="))]
    own = {"output": "", "count": "24"}
    own |= dict(word.split("=", 1) for word in words if word not in rest)
    if not own["output"] or not own["count"].isdecimal():
        raise UsageError(Code.REFUSED_WORD, "output", "is not given", "output=sheet.png [count=24]")
    values = compose("train", rest)["data"]
    data = build_datamodule({**values, "batch_size": int(own["count"]), "workers": 0}, seed=0)
    output = Path(own["output"])
    pair = first_pairs(data, output.parent / f"{output.stem}_corrupt.txt")
    write_picture(output, contact_sheet(pair))
    sys.stdout.write(f"{output.resolve()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
