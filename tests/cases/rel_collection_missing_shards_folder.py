"""The folder `shards` of a run is gone: going on, verifying and packing are no internal errors."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import match

base = Path(tempfile.mkdtemp())
(base / "photos").mkdir()
for name in ("a.jpg", "b.jpg"):
    shutil.copy("assets/demo0.jpg", base / "photos" / name)
words = [f"pairs={base}/photos", f"output={base}/run", "max_side=128", "threads=1"]
assert match.main(words) == 0
codes = {}
for what in (words, [f"verify={base}/run"], [f"pack={base}/run"]):
    shutil.rmtree(base / "run" / "shards", ignore_errors=True)
    codes[what[0].partition("=")[0]] = match.main(what)
print(codes)
sys.exit(codes != {"pairs": 0, "verify": 2, "pack": 2})
