"""resume=auto in a folder whose only checkpoint is damaged: the exported weights of the training
that made it must not be overwritten by those of a fresh start."""

import re
import sys
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import train

folder = Path(tempfile.mkdtemp())
(folder / "step_00050000-0123456789abcdef.ckpt").write_bytes(b"cut")
(folder / "weights.safetensors").write_bytes(b"of 50,000 steps")
words = [
    "experiment=smoke",
    f"folder={folder}",
    "trainer.threads=1",
    "trainer.accelerator=cpu",
    "data.workers=0",
    "data.batch_size=1",
    "trainer.max_steps=1",
    "resume=auto",
]
with redirect_stderr(StringIO()) as said:
    code = train.main(words)
kept = (folder / "weights.safetensors").read_bytes() == b"of 50,000 steps"
print("exit code", code, said.getvalue()[-300:], "weights kept" if kept else "weights replaced")
told = code in (2, 3, 4, 5) and re.search(r"\bE\d{3}\b", said.getvalue())
print("a promised exit code and a coded line" if told else "not told")
sys.exit(not (kept and told))
