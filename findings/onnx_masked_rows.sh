#!/usr/bin/env bash
# PyTorch, ONNX: queries that may see nothing get zeros in PyTorch, the mean of all values in ONNX.
#
# Versions: torch 2.13.0, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: scaled_dot_product_attention with a Boolean mask gives a zero row to a query whose keys
# are all masked. Exported by torch.onnx.export as it comes, the same module run in ONNX Runtime
# gives that query the average of ALL values, padded ones among them. All other rows agree. Whether
# this happens hangs on the way of exporting: at opset 23 the zeros stay, and with the older
# exporter (dynamo=False) too. No warning speaks of it, and a comparison on unpadded images finds
# nothing.
#
# Output seen (first three values of a padded query, and how far all other rows are off):
#   torch      [0.0, 0.0, 0.0]
#   default    [-0.122, -0.308, 0.334]  other rows off by less than 1e-5
#   opset 20   [-0.122, -0.308, 0.334]  other rows off by less than 1e-5
#   opset 23   [0.0, 0.0, 0.0]  other rows off by less than 1e-5
#   no dynamo  [0.0, 0.0, 0.0]  other rows off by less than 1e-5
#
# For a user: matchers pad images of unlike sizes and mask tokens by "both are inside", so each
# padded query is such a row. After export the padding carries finite values of a usual size, which
# a later convolution or pooling lets into the image. Export at opset 23, or zero those rows.
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

import numpy as np
import onnxruntime
import torch

logging.disable(logging.WARNING)


class Attention(torch.nn.Module):
    def forward(self, query, key, value, mask):
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(query, key, value, attn_mask=mask)


torch.manual_seed(0)
query, key, value = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
inside0 = torch.tensor([True] * 4 + [False] * 2)
inside1 = torch.tensor([True] * 4 + [False])
inputs = (query, key, value, inside0[:, None] & inside1[None])
expected = Attention()(*inputs).numpy()


def start(output):
    return [round(float(number), 3) for number in output[0, 0, 4, :3]]


print("torch     ", start(expected))
assert not expected[:, :, 4:].any()

ways = {
    "default": {},
    "opset 20": {"opset_version": 20},
    "opset 23": {"opset_version": 23},
    "no dynamo": {"dynamo": False},
}
outputs = {}
for way, options in ways.items():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        names = ["query", "key", "value", "mask"]
        torch.onnx.export(Attention().eval(), inputs, "a.onnx", input_names=names, **options)
    session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs)}
    outputs[way] = session.run(None, feed)[0]
    off = np.abs(outputs[way] - expected)[:, :, :4].max()
    assert off < 1e-5, off
    print(f"{way:10s} {start(outputs[way])}  other rows off by less than 1e-5")

mean = value.mean(2, keepdim=True).numpy()
for way in ("default", "opset 20"):
    assert np.allclose(outputs[way][:, :, 4:], mean, atol=1e-5)
for way in ("opset 23", "no dynamo"):
    assert not outputs[way][:, :, 4:].any()
print("as described")
PY
