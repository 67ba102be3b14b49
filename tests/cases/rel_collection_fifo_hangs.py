"""A named pipe among the images of a folder: its pairs fail, never a hang."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

base = Path(tempfile.mkdtemp())
(base / "photos").mkdir()
for name in ("a.jpg", "b.jpg"):
    shutil.copy("assets/demo0.jpg", base / "photos" / name)
os.mkfifo(base / "photos" / "pipe.jpg")
words = [
    sys.executable,
    "match.py",
    f"pairs={base}/photos",
    f"output={base}/run",
    "max_side=128",
    "threads=1",
]
try:
    code = subprocess.run(words, timeout=180).returncode
except subprocess.TimeoutExpired:
    print("hangs")
    sys.exit(1)
print("exit code", code)
sys.exit(code != 3)  # the pairs of the pipe failed, the others are done
