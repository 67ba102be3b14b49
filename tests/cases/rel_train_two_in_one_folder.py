"""Two trainings are started in the same folder, the second with another seed: it must be refused
while the first one runs, as both write the same checkpoints and weights and drop those of the other."""

import os
import re
import signal
import sys
import tempfile
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import train

folder = Path(tempfile.mkdtemp()) / "run"
words = [
    "experiment=smoke",
    f"folder={folder}",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "data.workers=0",
    "data.batch_size=1",
    "trainer.checkpoint_steps=4",
]
first = os.fork()
if first == 0:
    os._exit(train.main([*words, "trainer.max_steps=100000"]))
said = StringIO()
try:
    started = time.time()
    while time.time() - started < 200 and not (folder / "config.json").exists():
        time.sleep(0.1)
    os.kill(first, signal.SIGSTOP)  # It keeps the folder, and leaves the processor.
    with redirect_stderr(said):
        code = train.main([*words, "trainer.max_steps=2", "seed=7", "resume=auto"])
finally:
    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
print("second ended with", code, said.getvalue()[-200:])
told = code in (2, 4) and re.search(r"\bE\d{3}\b", said.getvalue())
print("refused" if told else "not refused with a promised exit code and a coded line")
sys.exit(not told)
