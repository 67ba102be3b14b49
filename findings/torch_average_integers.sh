#!/usr/bin/env bash
# PyTorch, Lightning: averaging the weights lowers whole numbers that never change, such as indices.
#
# Versions: torch 2.13.0, pytorch-lightning 2.6.6, transformers 5.24.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: AveragedModel(use_buffers=True), which Lightning's EMAWeightAveraging builds by default,
# averages buffers like weights, integer ones too: decay * old + (1 - decay) * new, in float32 and
# then cut to a whole number. Where old equals new, the sum often lacks a millionth, and one less is
# stored. Which numbers are hit hangs on the decay. An index then names a neighbor.
#
# Output seen (first, how many of the numbers 0 to 999 two updates lower; then a Swin Transformer
# with random weights and windows of 7 x 7, trained with a learning rate of 0, so that the average
# should be the model: indices of relative positions that fit changed, and how far that moved the
# output, whose values reach 3):
#   lowered: 0.9 280  0.99 0  0.999 0  0.9995 301  0.9998 0  0.9999 198  0.99998 333
#   decay 0.99                       indices    0 of 4802  output 0.000
#   decay 0.999                      indices    0 of 4802  output 0.000
#   decay 0.9995                     indices 1564 of 4802  output 0.369
#   decay 0.9999                     indices  834 of 4802  output 0.237
#   decay 0.9999, use_buffers=False  indices    0 of 4802  output 0.000
#
# For a user: networks with windows, hashed grids or numbered positions keep such tables as buffers,
# often ones that are not saved. The averaged weights are then judged with wrong indices, worse than
# they are, for some decays and not for others. Give use_buffers=False, which copies all buffers
# from the model, statistics of batch norm too, or write the integers back after each update.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    torch==2.13.0 pytorch-lightning==2.6.6 transformers==5.24.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import logging
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import SwinConfig, SwinModel

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
CONFIG = SwinConfig(
    image_size=56, patch_size=4, embed_dim=24, depths=[2], num_heads=[2], window_size=7
)


class Training(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = SwinModel(CONFIG)
        for name, weight in self.net.named_parameters():  # as large as trained ones
            if name.endswith("relative_position_bias_table"):
                torch.nn.init.normal_(weight)
            elif weight.ndim > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)

    def training_step(self, batch, number):
        return self.net(batch).last_hidden_state.square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def indices(net):
    return torch.cat([b.clone().flatten() for b in net.buffers() if b.dtype == torch.int64])


@torch.no_grad()
def output(net, image):
    return net.eval()(image).last_hidden_state


def run(decay, use_buffers=True):
    module = Training()
    images = torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    before, seen = indices(module.net), output(module.net, images[:1])
    module.train()
    pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=".",
        callbacks=[EMAWeightAveraging(decay=decay, use_buffers=use_buffers)],
    ).fit(module, torch.utils.data.DataLoader(images, batch_size=1))
    moved = (indices(module.net) != before).sum().item()
    off = (output(module.net, images[:1]) - seen).abs().max().item()
    print(
        f"decay {decay}{'' if use_buffers else ', use_buffers=False'}".ljust(33)
        + f"indices {moved:4d} of {len(before)}  output {off:.3f}",
        flush=True,
    )
    return moved, off


class Numbers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("numbers", torch.arange(1000))


print("lowered:", end="")
for decay in (0.9, 0.99, 0.999, 0.9995, 0.9998, 0.9999, 0.99998):
    model = Numbers()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for _ in range(2):
        average.update_parameters(model)
    lowered = (average.module.numbers < model.numbers).sum().item()
    print(f" {decay} {lowered}", end=" " if decay < 0.99998 else "\n", flush=True)
    assert lowered == 0 if decay in (0.99, 0.999, 0.9998) else lowered > 100
for decay in (0.99, 0.999):
    moved, off = run(decay)
    assert moved == 0 and off < 1e-4
for decay in (0.9995, 0.9999):
    moved, off = run(decay)
    assert moved > 500 and off > 0.1
moved, off = run(0.9999, use_buffers=False)
assert moved == 0 and off < 1e-4
print("as described")
PY
