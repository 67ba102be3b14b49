#!/usr/bin/env bash
# TorchMetrics, Lightning: metrics that agree on the first batch are one metric from then on.
#
# Versions: torchmetrics 1.9.0, pytorch-lightning 2.6.6, torch 2.13.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: after its first update a MetricCollection compares the states of its metrics. Those that
# are equal count as one metric that is computed in several ways; later updates go to the first of
# them and the others share its state. Options such as a threshold are not compared, reset() does
# not undo it, and nothing is told. Lightning's check of the validation before training is a first
# update too: an untrained network fails everywhere, all thresholds agree on 0, and they stay equal
# for the whole run. The documentation says that groups are found by itself, not that it can err.
#
# Output seen (four pairs with pose errors of 2, 7, 15 and 30 degrees, 90 before training; share of
# pairs below 5, 10 and 20 degrees after the second epoch; last, two built-in metrics):
#   pairs one by one                      5: 0.50  10: 0.50  20: 0.50
#   all four at once                      5: 0.50  10: 0.50  20: 0.50
#   all at once, no check before          5: 0.25  10: 0.50  20: 0.75
#   compute_groups=False                  5: 0.25  10: 0.50  20: 0.75
#   BinaryAccuracy at 0.5 and 0.9        together 0.40 and 0.40  alone 0.40 and 1.00
#
# For a user: validation of a matcher by AUC or recall at three thresholds is such a collection, and
# with one pair a batch the first one decides. If the curves of all thresholds lie on each other,
# this is why; where only two are merged, it looks like a result. Give compute_groups=False.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    torch==2.13.0 pytorch-lightning==2.6.6 torchmetrics==1.9.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import logging
import warnings

import pytorch_lightning as pl
import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryAccuracy

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
ERRORS = torch.tensor([2.0, 7, 15, 30])
LIMITS = (5, 10, 20)
TRUE = {"5": 0.25, "10": 0.5, "20": 0.75}


class Recall(Metric):
    """Share of errors below a limit."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.add_state("found", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("seen", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, errors):
        self.found += (errors < self.limit).sum()
        self.seen += len(errors)

    def compute(self):
        return self.found / self.seen


class Training(pl.LightningModule):
    def __init__(self, groups):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        metrics = {str(limit): Recall(limit) for limit in LIMITS}
        self.metrics = MetricCollection(metrics, compute_groups=groups)

    def training_step(self, batch, number):
        return (self.weight - 1) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def validation_step(self, errors, number):
        trained = self.weight > 0
        self.metrics.update(errors if trained else torch.full_like(errors, 90.0))
        self.log_dict(self.metrics)


def run(name, size, checked=2, groups=True):
    module = Training(groups)
    loader = torch.utils.data.DataLoader(ERRORS, batch_size=size)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=checked,
    )
    trainer.fit(module, loader, loader)
    values = {key: round(trainer.callback_metrics[key].item(), 2) for key in TRUE}
    print(f"{name:34s} ", *(f"{key:>3s}: {value:.2f}" for key, value in values.items()), flush=True)
    return values


same = {"5": 0.5, "10": 0.5, "20": 0.5}
assert run("pairs one by one", 1) == same
assert run("all four at once", 4) == same
assert run("all at once, no check before", 4, checked=0) == TRUE
assert run("compute_groups=False", 1, groups=False) == TRUE

BATCHES = (
    (torch.tensor([0.95, 0.1]), torch.tensor([1, 0])),
    (torch.tensor([0.6, 0.7, 0.8]), torch.tensor([0, 0, 0])),
)


def together():
    return MetricCollection({str(i): BinaryAccuracy(threshold=t) for i, t in enumerate((0.5, 0.9))})


shared, alone = together(), [BinaryAccuracy(threshold=0.5), BinaryAccuracy(threshold=0.9)]
for scores, truth in BATCHES:
    for metric in (shared, *alone):
        metric.update(scores, truth)
found = [round(value.item(), 2) for value in shared.compute().values()]
right = [round(metric.compute().item(), 2) for metric in alone]
print(
    f"BinaryAccuracy at 0.5 and 0.9        together {found[0]:.2f} and {found[1]:.2f}  "
    f"alone {right[0]:.2f} and {right[1]:.2f}"
)
assert found == [0.4, 0.4] and right == [0.4, 1.0]
print("as described")
PY
