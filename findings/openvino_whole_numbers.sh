#!/usr/bin/env bash
# OpenVINO: whole numbers of a PyTorch model change: masks do not count, floors round to zero.
#
# Versions: openvino 2026.4.1, torch 2.13.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: openvino.convert_model takes a PyTorch module as it is. Four operations on numbers come
# out as other operations, without an error or a warning:
# - cumsum of a Boolean mask stays Boolean: every count above 1 is True. With dtype=int64 it counts.
# - // of integers, and torch.div with rounding_mode="floor", round to zero where one is negative.
#   Of floats both round down, as PyTorch does for all.
# - torch.round ignores its decimals.
# - uint8 arithmetic stops at 0 and 255 where PyTorch wraps around.
#
# Output seen (PyTorch, then OpenVINO on the CPU):
#   mask.cumsum(0)               0 1 2 2 3        0 1 1 1 1
#   mask.cumsum(0, int64)        0 1 2 2 3        0 1 2 2 3
#   whole // 4                   -2 -2 -1 0 1     -2 -1 0 0 1
#   div(whole, 4, floor)         -2 -2 -1 0 1     -2 -1 0 0 1
#   div(float, 4, floor)         -2 -2 -1 0 1     -2 -2 -1 0 1
#   round(x, decimals=1)         0.3 -1.7         0 -2
#   bytes - 100                  200 156 0 100    0 0 0 100
#
# For a user: matchers number the cells inside a mask by cumsum, and find the window or the coarser
# cell of a position by //, which may lie left of or above the image. Converted, all masked cells
# share number 1, and windows at the left and upper border are one to the right or below; the rest
# of the image is right. Give cumsum a dtype, divide floats, and compare on images with padding.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 openvino==2026.4.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import logging
import warnings

import numpy as np
import openvino
import torch

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
mask = torch.tensor([False, True, True, False, True])
whole = torch.tensor([-8, -5, -1, 3, 4])
some = torch.tensor([0.26, -1.73])
few = torch.tensor([44, 0, 100, 200], dtype=torch.uint8)


class Module(torch.nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, given):
        return self.call(given)


def by_openvino(module, given):
    model = openvino.convert_model(module, example_input=given)
    return openvino.compile_model(model, "CPU", OPTIONS)(given.numpy())[0]


CASES = {
    "mask.cumsum(0)": (lambda x: x.cumsum(0), mask, False),
    "mask.cumsum(0, int64)": (lambda x: x.cumsum(0, dtype=torch.int64), mask, True),
    "whole // 4": (lambda x: x // 4, whole, False),
    "div(whole, 4, floor)": (lambda x: torch.div(x, 4, rounding_mode="floor"), whole, False),
    "div(float, 4, floor)": (lambda x: torch.div(x, 4, rounding_mode="floor"), whole.float(), True),
    "round(x, decimals=1)": (lambda x: torch.round(x, decimals=1), some, False),
    "bytes - 100": (lambda x: x - 100, few, False),
}
for name, (call, given, right) in CASES.items():
    module = Module(call).eval()
    wanted, found = module(given).numpy().astype(float), by_openvino(module, given).astype(float)
    columns = (" ".join(f"{number:.4g}" for number in row) for row in (wanted, found))
    print("{:28s} {:16s} {}".format(name, *columns), flush=True)
    assert np.allclose(wanted, found) == right
print("as described")
PY
