"""Two trainings are started in the same folder, the second with another seed: it must be refused
while the first one runs, as both write the same checkpoints and weights and drop those of the other."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

folder = Path(tempfile.mkdtemp()) / "run"
words = [
    sys.executable,
    "train.py",
    "experiment=smoke",
    f"folder={folder}",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "data.workers=0",
    "data.batch_size=1",
    "trainer.checkpoint_steps=4",
]
first = subprocess.Popen(
    [*words, "trainer.max_steps=100000"],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
)
try:
    started = time.time()
    while first.poll() is None and time.time() - started < 200:
        if (folder / "config.json").exists():
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGSTOP)  # It keeps the folder, and leaves the processor.
    second = subprocess.run(
        [*words, "trainer.max_steps=2", "seed=7", "resume=auto"],
        timeout=280,
        capture_output=True,
        text=True,
    )
finally:
    first.kill()
    first.communicate()
print("second ended with", second.returncode, (second.stderr or second.stdout)[-200:])
told = second.returncode in (2, 4) and re.search(r"\bE\d{3}\b", second.stderr + second.stdout)
print("refused" if told else "not refused with a promised exit code and a coded line")
sys.exit(not told)
