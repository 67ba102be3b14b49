#!/usr/bin/env bash
# PyTorch, ONNX: a mean over cells exports as "the last value of each cell".
#
# Versions: torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: scatter_reduce(..., "mean") averages all values that have the same index. ONNX has no
# such reduction. torch.onnx.export writes a ScatterElements without any, which keeps one value per
# index, without an error or a warning. The other reductions export as they are, also with
# include_self=False, which is unknown to ONNX too.
#
# Output seen (values 1 to 5 into cells 0 2 2 1 0; PyTorch, then ONNX Runtime):
#   mean                    3.0 4.0 2.5   5.0 4.0 3.0
#   mean, opset 23          3.0 4.0 2.5   5.0 4.0 3.0
#   sum                     6.0 4.0 5.0   6.0 4.0 5.0
#   amax                    5.0 4.0 3.0   5.0 4.0 3.0
#   sum divided by count    3.0 4.0 2.5   3.0 4.0 2.5
#
# For a user: features of pixels, points or matches are pooled to cells, voxels or superpixels like
# this. The exported network has the right shapes and usual values, and where a test input puts at
# most one value into a cell it agrees with PyTorch. Export a sum divided by a count.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import contextlib
import io
import logging
import warnings

import onnxruntime
import torch

logging.disable(logging.WARNING)
VALUES, CELLS = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([0, 2, 2, 1, 0])


class Pool(torch.nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def forward(self, values, cells):
        empty = torch.zeros(3)
        if self.how == "by hand":
            count = empty.scatter_add(0, cells, torch.ones_like(values))
            return empty.scatter_add(0, cells, values) / count
        return empty.scatter_reduce(0, cells, values, self.how, include_self=False)


def exported(module, **options):
    """What ONNX Runtime makes of the module."""
    told = io.StringIO()
    with (
        contextlib.redirect_stdout(told),
        contextlib.redirect_stderr(told),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        names = ["values", "cells"]
        program = torch.onnx.export(module, (VALUES, CELLS), input_names=names, **options)
    assert not any("scatter" in str(warning.message) for warning in caught)
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"values": VALUES.numpy(), "cells": CELLS.numpy()})[0].tolist()


def words(values):
    return " ".join(f"{value:.1f}" for value in values)


CASES = {
    "mean": ("mean", {}, [5, 4, 3]),
    "mean, opset 23": ("mean", {"opset_version": 23}, [5, 4, 3]),
    "sum": ("sum", {}, [6, 4, 5]),
    "amax": ("amax", {}, [5, 4, 3]),
    "sum divided by count": ("by hand", {}, [3, 4, 2.5]),
}
RIGHT = {"mean": [3, 4, 2.5], "by hand": [3, 4, 2.5], "sum": [6, 4, 5], "amax": [5, 4, 3]}
for name, (how, options, expected) in CASES.items():
    module = Pool(how)
    right, seen = module(VALUES, CELLS).tolist(), exported(module, **options)
    print(f"{name:22s}  {words(right)}   {words(seen)}", flush=True)
    assert right == RIGHT[how] and seen == expected
print("as described")
PY
