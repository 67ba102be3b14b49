#!/usr/bin/env bash
# PyTorch, onnxscript: two plain operations that export to ONNX in one spelling and not in another.
#
# Versions: torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: torch.onnx.export raises ConversionError for torch.amin(x) without `dim`, though x.min()
# and torch.amin over named axes export. It
# raises the same for `tensor % size` where the size is dynamic, which is how the column of a cell
# is computed in detectors and matchers of any size; the same remainder written as a difference of
# products exports. Run as PyTorch, and by torch.export, every one of them works.
#
# Output seen:
#   amin(x)             ConversionError
#   x.min()             exports
#   amin(x, (0, 1))     exports
#   index % columns     ConversionError
#   index - rows * w    exports
#
# For a user: a matcher that fails to export with a message about a node named `amin` or
# `remainder` has nothing wrong with its sizes; another spelling is enough.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import contextlib
import io
import logging
import warnings

import torch
from torch.export import Dim

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")


def index(x):
    return torch.arange(x.shape[0] * x.shape[1])


CASES = {
    "amin(x)": lambda x: torch.amin(x),
    "x.min()": lambda x: x.min(),
    "amin(x, (0, 1))": lambda x: torch.amin(x, (0, 1)),
    "index % columns": lambda x: index(x) % x.shape[1],
    "index - rows * w": lambda x: index(x) - index(x) // x.shape[1] * x.shape[1],
}
EXPECTED = ["ConversionError", "exports", "exports", "ConversionError", "exports"]


class Case(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


x = torch.arange(12.0).view(3, 4)
shapes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
seen = []
for name, call in CASES.items():
    module = Case(call).eval()
    program = torch.export.export(module, (x,), dynamic_shapes=shapes)
    assert torch.equal(program.module()(x), module(x))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=shapes)
        seen.append("exports")
    except torch.onnx.errors.OnnxExporterError as error:
        seen.append(type(error).__name__)
    print(f"{name:19} {seen[-1]}")
assert seen == EXPECTED, seen
PY
