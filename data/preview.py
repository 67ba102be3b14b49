"""Sheets of training pairs with some of their true matches, to look at.

    python -m data.preview output=sheet.png [data=synthetic] [count=24] [key=value ...]

Further words change the data configuration of conf/train.yaml, as in
`data._synthetic.photos=FOLDER`. Samples that cannot be read are listed beside the sheet, as
sheet_corrupt.txt.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from conf import compose
from data.datamodule import PairData, build_datamodule, collate
from data.order import PairStream
from data.real.sources import SOURCES
from matcher.errors import Code, UsageError, program
from matcher.structures import ImagePair
from matcher.training.supervision import supervise

STRIDE = 8


def first_pairs(data: PairData, notes: Path) -> ImagePair:
    """The first batch of a run; `notes` lists samples that cannot be read.

    Raises:
        MatcherError: the source cannot be used.
    """
    config = data.config
    if config.source not in SOURCES:
        return data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    pairs, order = data.files_in_order(notes)
    keys = next(iter(PairStream(order, config.batch_size)))
    return collate([pairs[key] for key in keys])


def contact_sheet(pair: ImagePair, *, columns: int = 3, lines: int = 12) -> np.ndarray:
    """(H, W, 3) BGR picture of a batch: the two images of each pair side by side.

    Args:
        pair: a batch with geometry.
        columns: pairs in a row.
        lines: true matches drawn for each pair; the number beside its name counts all of them.
    """
    targets, _ = supervise(pair, stride=STRIDE, reach=float(STRIDE), tolerance=0.05)
    cells0, cells1 = -(-pair.image0.shape[-1] // STRIDE), -(-pair.image1.shape[-1] // STRIDE)
    tiles = []
    for b in range(len(pair.image0)):
        chosen = (targets.batch == b).nonzero()[:, 0]
        spread = chosen[torch.linspace(0, len(chosen) - 1, min(lines, len(chosen))).long()]
        ends0 = _pixels(targets.index0[spread], cells0)
        ends1 = _pixels(targets.index1[spread], cells1)
        label = f"{pair.names[b][0]} {len(chosen)}" if pair.names else str(len(chosen))
        tiles.append(_tile(pair.image0[b, 0], pair.image1[b, 0], ends0, ends1, label))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)


def _pixels(index: torch.Tensor, cells: int) -> np.ndarray:
    """(N, 2) centres of cells."""
    return (torch.stack([index % cells, index // cells], dim=1) * STRIDE).cpu().numpy()


def _tile(
    image0: torch.Tensor, image1: torch.Tensor, ends0: np.ndarray, ends1: np.ndarray, label: str
) -> np.ndarray:
    both = torch.cat([image0, image1], dim=1).cpu().numpy()
    tile = cv2.cvtColor((both * 255).round().astype(np.uint8), cv2.COLOR_GRAY2BGR)
    shift = image0.shape[1]
    for i, ((x0, y0), (x1, y1)) in enumerate(zip(ends0.tolist(), ends1.tolist(), strict=True)):
        hue = np.array([[[i * 180 // max(len(ends0), 1), 220, 255]]], np.uint8)
        colour = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
        cv2.line(tile, (x0, y0), (x1 + shift, y1), colour, 1, cv2.LINE_AA)
        cv2.circle(tile, (x0, y0), 2, colour, -1)
        cv2.circle(tile, (x1 + shift, y1), 2, colour, -1)
    cv2.putText(tile, label, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 255, 255), 1)
    return tile


@program
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    own = {"output": "", "count": "24"}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if key in own:
            own[key] = value
        else:
            rest.append(word)
    if not own["output"] or not own["count"].isdecimal():
        raise UsageError(Code.REFUSED_WORD, "output", "is not given", "output=sheet.png [count=24]")
    values = compose("train", rest)["data"]
    data = build_datamodule({**values, "batch_size": int(own["count"]), "workers": 0}, seed=0)
    output = Path(own["output"])
    pair = first_pairs(data, output.parent / f"{output.stem}_corrupt.txt")
    if not cv2.imwrite(own["output"], contact_sheet(pair)):
        raise UsageError(Code.UNWRITABLE, own["output"], "cannot be written")
    sys.stdout.write(f"{output.resolve()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
