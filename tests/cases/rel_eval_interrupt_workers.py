"""Ctrl-C in an evaluation with two workers ends it after the pairs under way, not after all.

Nine processes import the library: tests/eval/test_processes.py has the same in a second.
"""

# slow

import glob
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

base = Path(tempfile.mkdtemp())
(base / "images").mkdir()
picture = np.array(Image.open("assets/demo0.jpg").convert("RGB"))
K, lines = "500 0 320 0 500 240 0 0 1", []
for i in range(60):
    for name, by in (("a", 0), ("b", 6)):
        Image.fromarray(np.roll(picture, 3 * i + by, 1)).save(base / "images" / f"{name}{i}.png")
    lines.append(f"a{i}.png b{i}.png 0 0 {K} {K} 1 0 0 1 0 1 0 0 0 0 1 0 0 0 0 1")
(base / "pairs_with_gt.txt").write_text("\n".join(lines) + "\n")


def attempt(name):
    """Predictions at the signal and at the end, and the exit code."""

    def done():
        return len(glob.glob(f"{base}/{name}/predictions/*/*.h5"))

    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "eval",
            "benchmark=pairs",
            f"root={base}",
            f"output={base}/{name}",
            "method=rootsift",
            "report=false",
            "workers=2",
        ],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while run.poll() is None and done() < 3:
        time.sleep(0.02)
    before = done()
    os.kill(run.pid, signal.SIGINT)
    try:
        run.wait(timeout=200)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
    return before, done(), run.returncode


for number in range(3):  # whether it happens is a matter of chance
    before, after, code = attempt(f"out{number}")
    print(f"{before} of {len(lines)} pairs at the signal, {after} at the end, exit code {code}")
    sys.stdout.flush()
    if after > before + 10 or code not in (130, -2):
        sys.exit(1)
