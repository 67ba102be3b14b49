"""A matcher as a file for other programs: `quadmatch export onnx [output=FILE] [key=value ...]`.

usage: quadmatch export onnx [output=matcher.onnx] [weights=compact] [top_k=4096]
       quadmatch export torch [output=matcher.pt2] ...

  onnx    for ONNX Runtime, OpenVINO and others (opset 23)
  torch   a program of torch.export; docs/onnx.md says how it is loaded

The file takes two gray images of any two sizes and their masks, and gives the best top_k matches in
pixels with their scores, 0 for what is none. docs/onnx.md shows how it is used.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from matcher.files import check_targets
from matcher.terminal.program import program
from matcher.validation.checked import Name, checked, invalid
from matcher.validation.words import options_from_words

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@checked()
class ExportOptions:
    """What is exported, and where to."""

    kind: Literal["onnx", "torch"]
    output: Name | None = None
    weights: Name = "compact"
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    offline: bool = False

    def __post_init__(self) -> None:
        if self.path.suffix != SUFFIXES[self.kind]:
            raise invalid("output", self.output, f"a name ending in {SUFFIXES[self.kind]}")

    @property
    def path(self) -> Path:
        return Path(self.output or f"matcher{SUFFIXES[self.kind]}")


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    kind, *rest = words
    options = options_from_words(ExportOptions, [f"kind={kind}", *rest])
    check_targets([options.path], [options.weights])
    export(options)
    size = options.path.stat().st_size / 1e6
    sys.stdout.write(f"output    {options.path}, {size:.1f} MB, at most {options.top_k} matches\n")
    return 0


def export(options: ExportOptions) -> None:
    """Write the file."""
    import torch

    from matcher.files import write_atomically
    from matcher.interop.graph import trace
    from matcher.interop.onnx import export_onnx
    from matcher.predictor import load_matcher

    settings = {"offline": options.offline, "device": "cpu", "dtype": "float32"}
    model = load_matcher(options.weights, **settings).model
    if options.kind == "onnx":
        export_onnx(model, options.path, top_k=options.top_k)
        return
    data = io.BytesIO()
    torch.export.save(trace(model, options.top_k), data)
    write_atomically(options.path, data.getvalue())
