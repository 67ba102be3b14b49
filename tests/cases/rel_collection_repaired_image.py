"""A damaged image fails its pairs; it is repaired and, as the documentation says, their shard is
deleted: the same words must then try these pairs again instead of refusing the whole run."""

import glob
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
for name in ("a.jpg", "b.jpg", "c.jpg"):
    shutil.copy("assets/demo0.jpg", base / "photos" / name)
data = (base / "photos" / "c.jpg").read_bytes()
(base / "photos" / "c.jpg").write_bytes(data[:3000])
words = [f"pairs={base}/photos", f"output={base}/run", "max_side=128", "threads=1", "shard_size=1"]
first = match.main(words)
(base / "photos" / "c.jpg").write_bytes(data)
for line in (base / "run" / "failures.tsv").read_text().splitlines():
    print("failed before:", line)
for shard in sorted(glob.glob(f"{base}/run/shards/*"))[1:]:  # pairs 1 and 2 hold the damaged image
    os.unlink(shard)
second = match.main(words)
print("exit codes", first, second)
sys.exit(not (first == 3 and second == 0))
