#!/usr/bin/env bash
# Lightning: a checkpoint saved by the clock can lose half of an accumulated gradient.
#
# Versions: pytorch-lightning 2.6.6, torch 2.13.0, numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: ModelCheckpoint(train_time_interval=...) looks at the clock after every batch, also
# between the batches of one accumulate_grad_batches group. The checkpoint then says that three
# batches are done and one step was taken, but the gradient of the third batch is in no file. The
# resumed run goes on with the fourth batch and steps on that one alone, still divided by two. The
# loader here keeps its place and is restored to it, so that no batch is repeated or left out. Saved
# after a whole group, the same run resumes exactly.
#
# Saving by steps is right at first, but after a resume it saves again within the first group: the
# same step number, one batch more, over the good file that it was resumed from.
#
# Output seen (batches 1 to 8, groups of two, one weight):
#   undisturbed             batches 1 2 3 4 5 6 7 8  weight 2.9816
#   saved after batch 3     steps 1, then batches 4 5 6 7 8  weight 2.8088
#   saved after batch 4     steps 2, then batches 5 6 7 8  weight 2.9816
#   every two steps         step 2 after batch 4, overwritten after batch 5 by the resumed run
#
# For a user: on a machine that may be taken away, saving by time is the natural choice, and large
# groups the natural companion of large images. An interruption can then cost up to all but one
# batch of a group and makes one step too small, at random and without a word; interrupted runs
# cannot be repeated bit for bit. Let a callback of your own save, and only where the number of
# batches done is a multiple of accumulate_grad_batches.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 pytorch-lightning==2.6.6 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PY'
import logging
import time
import warnings
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

warnings.filterwarnings("ignore")
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
INTERVAL = 20.0  # seconds; the clock is moved by hand below


class Numbers:
    """A loader of the numbers 1 to 8 that remembers its place."""

    def __init__(self):
        self.place = 0

    def __len__(self):
        return 8

    def __iter__(self):
        while self.place < 8:
            self.place += 1
            yield torch.tensor([float(self.place)])
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Model(pl.LightningModule):
    def __init__(self, slow=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.slow, self.seen = slow, []

    def training_step(self, batch, index):
        self.seen.append(int(batch))
        if self.seen[-1] == self.slow:
            now = time.monotonic
            time.monotonic = lambda: now() + INTERVAL  # this batch takes long
        return ((self.weight - batch) ** 2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(folder, slow=None, resume=None, **when):
    model = Model(slow)
    when = when or {"train_time_interval": timedelta(seconds=INTERVAL)}
    save = ModelCheckpoint(dirpath=folder, save_top_k=-1, filename="{step}", **when)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=2,
        callbacks=[save],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, Numbers(), ckpt_path=resume)
    return model


def words(model):
    return f"batches {' '.join(map(str, model.seen))}  weight {model.weight.item():.4f}"


whole = train("whole")
print(f"undisturbed             {words(whole)}")
ends = {}
for slow in (3, 4):
    train(f"slow{slow}", slow)
    (saved,) = Path(f"slow{slow}").glob("*.ckpt")
    steps = torch.load(saved, weights_only=False)["global_step"]
    model = train(f"resumed{slow}", resume=saved)
    print(f"saved after batch {slow}     steps {steps}, then {words(model)}")
    assert steps == slow // 2 and model.seen == list(range(slow + 1, 9))
    ends[slow] = model.weight.item()

batches = []
for resume in (None, "steps/step=2.ckpt"):
    train("steps", resume=resume, every_n_train_steps=2)
    loops = torch.load("steps/step=2.ckpt", weights_only=False)["loops"]["fit_loop"]
    batches.append(loops["epoch_loop.batch_progress"]["total"]["ready"])
print(
    "every two steps         step 2 after batch {}, overwritten after batch {} "
    "by the resumed run".format(*batches)
)

assert batches == [4, 5]
assert ends[4] == whole.weight.item()
assert abs(whole.weight.item() - 2.9816) < 1e-4 and abs(ends[3] - 2.8088) < 1e-4
print("as described")
PY
