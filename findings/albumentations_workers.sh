#!/usr/bin/env bash
# albumentations: all workers of a DataLoader draw the same augmentations, and each epoch again.
#
# Versions: albumentations 2.0.8, albucore 0.0.24, torch 2.13.0, opencv-python-headless 5.0.0.93,
# numpy 2.4.6.
# (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu gets the smaller CPU build of torch.)
#
# Behavior: a Compose holds random generators of its own, made when it is, with or without a seed.
# A DataLoader copies its dataset to each worker, and in each epoch anew: all copies of a Compose
# made in the dataset's constructor start in the same state. PyTorch and Lightning give workers
# seeds of their own, for torch, numpy and random, none of which a Compose reads. Its docstring says
# that it is independent of global seeds and that without a seed it is random, nothing of workers.
# With persistent workers the epochs differ, but the workers do not.
#
# Output seen (400 samples an epoch, 5 epochs, so 2000 draws of a random affine map; how many are
# different):
#   num_workers=0                          2000
#   num_workers=2                           200
#   num_workers=4                           100
#   num_workers=4, seed given               100
#   num_workers=4, numpy etc. seeded        100
#   num_workers=4, persistent               500
#   num_workers=4, Compose seeded          2000
#
# For a user: matchers are trained on random maps of single images or on pairs that are augmented.
# Of hours of training with 8 workers and 50 epochs a four-hundredth of the maps is left, and the
# loss alone does not tell. Seed the Compose in worker_init_fn, by set_random_seed with
# torch.initial_seed(), which differs for each worker and epoch.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet \
    albumentations==2.0.8 albucore==0.0.24 torch==2.13.0 opencv-python-headless==5.0.0.93 \
    numpy==2.4.6
cd "$work"
cat > draws.py <<'PY'
import random
import warnings

import albumentations as A
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

SAMPLES, EPOCHS = 400, 5
IMAGE = np.zeros((32, 32), np.uint8)
warnings.filterwarnings("ignore")


class Maps(Dataset):
    """Where a random affine map takes one point."""

    def __init__(self, seed):
        self.map = A.Compose(
            [A.Affine(rotate=(-180, 180), p=1)],
            keypoint_params=A.KeypointParams(format="xy", remove_invisible=False),
            seed=seed,
        )

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return np.array(self.map(image=IMAGE, keypoints=[(20.0, 30.0)])["keypoints"][0])


def seed_numpy(number):
    random.seed(torch.initial_seed())
    np.random.seed(torch.initial_seed() % 2**32)


def seed_compose(number):
    get_worker_info().dataset.map.set_random_seed(torch.initial_seed() % 2**32)


def different(workers, seed=None, **options):
    loader = DataLoader(Maps(seed), batch_size=10, num_workers=workers, **options)
    draws = torch.cat([batch for _ in range(EPOCHS) for batch in loader])
    assert len(draws) == SAMPLES * EPOCHS
    return len(torch.unique(draws, dim=0))


if __name__ == "__main__":
    for name, seen, expected in (
        ("num_workers=0", different(0), 2000),
        ("num_workers=2", different(2), 200),
        ("num_workers=4", different(4), 100),
        ("num_workers=4, seed given", different(4, seed=1), 100),
        ("num_workers=4, numpy etc. seeded", different(4, worker_init_fn=seed_numpy), 100),
        ("num_workers=4, persistent", different(4, persistent_workers=True), 500),
        ("num_workers=4, Compose seeded", different(4, worker_init_fn=seed_compose), 2000),
    ):
        print(f"{name:36s} {seen:5d}", flush=True)
        assert seen == expected
    print("as described")
PY
NO_ALBUMENTATIONS_UPDATE=1 "$work/venv/bin/python" draws.py
