"""A program for the kill tests: train.py on planes. Words are those of train.py, after WORKERS."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from planes import PlaneData  # noqa: E402

from data.compose import compose  # noqa: E402
from train import train  # noqa: E402

if __name__ == "__main__":
    train(compose("train", sys.argv[2:]), PlaneData(workers=int(sys.argv[1])))
