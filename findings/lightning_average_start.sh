#!/usr/bin/env bash
# Lightning: the two ways to start a moving average late; one does not wait, one can undo the run.
#
# Versions: pytorch-lightning 2.6.6, torch 2.13.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: EMAWeightAveraging has update_starting_at_epoch and update_starting_at_step.
# - The epoch alone delays nothing: as no step is given, every step counts as late enough, so the
#   average starts at once. From the given epoch on each epoch's last weights enter a second time.
# - A step that the run does not reach leaves the average at the first, untrained weights. When
#   training ends, the callback puts the average into the model: what was trained is overwritten.
#
# Output seen (5 steps an epoch, 4 epochs; updates of the average by the end of each epoch, the
# weight as trained and as left in the model by fit; the loss is least at 3):
#   no start       updates 5 10 15 20  trained 2.9654  left 2.9539
#   from epoch 2   updates 5 10 16 22  trained 2.9654  left 2.9599
#   from step 10   updates 0 0 5 10    trained 2.9654  left 2.9541
#   from step 100  updates 0 0 0 0     trained 2.9654  left 0.0000
#
# For a user: a warm-up excluded by epoch is in the average all the same, so comparisons of "average
# from epoch N" with "average always" compare almost nothing. And a short trial run of a long
# schedule ends, without a warning, with the weights it began with; only current_model_state in a
# checkpoint still holds the trained ones. Give the start as a step, and one that the run reaches.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import logging
import warnings

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


class Counted(EMAWeightAveraging):
    """Counts, by the public hook alone, how often the average is updated."""

    def __init__(self, **options):
        super().__init__(decay=0.5, **options)
        self.updates = 0

    def should_update(self, step_idx=None, epoch_idx=None):
        yes = super().should_update(step_idx, epoch_idx)
        self.updates += yes
        return yes


class Watch(pl.Callback):
    def __init__(self, average):
        self.average, self.updates, self.trained = average, [], None

    def on_train_epoch_end(self, trainer, module):
        self.updates.append(self.average.updates)
        self.trained = module.weight.item()


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        return ((self.weight - batch) ** 2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(**options):
    model, average = Model(), Counted(**options)
    watch = Watch(average)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=4,
        callbacks=[average, watch],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(torch.full((5, 1), 3.0), batch_size=1))
    return watch.updates, watch.trained, model.weight.item()


runs = {
    "no start": train(),
    "from epoch 2": train(update_starting_at_epoch=2),
    "from step 10": train(update_starting_at_step=10),
    "from step 100": train(update_starting_at_step=100),
}
for name, (updates, trained, left) in runs.items():
    counts = " ".join(map(str, updates))
    print(f"{name:14s} updates {counts:10s}  trained {trained:.4f}  left {left:.4f}")

assert [updates for updates, _, _ in runs.values()] == [
    [5, 10, 15, 20],
    [5, 10, 16, 22],
    [0, 0, 5, 10],
    [0, 0, 0, 0],
]
assert all(abs(trained - 2.9654) < 1e-4 for _, trained, _ in runs.values())
assert abs(runs["from epoch 2"][2] - 2.9599) < 1e-4
assert runs["from step 100"][2] == 0.0
print("as described")
PY
