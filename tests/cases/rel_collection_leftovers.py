"""What a killed export left behind (a hidden part file, as large as the results) is removed when
the run goes on, as trainings do; and a list of failures that no longer holds is not left either."""

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
words = [f"pairs={base}/photos", f"output={base}/run", "max_side=128", "threads=1", "export=pack"]
assert match.main(words) == 0
part = base / "run" / ".quadmatch-999999-deadbeef.part"
part.write_bytes(b"x" * 1000)
(base / "run" / "failures.tsv").write_text("a.jpg\tb.jpg\tfailed:E131\n")  # of an earlier attempt
for packed in (base / "run" / "shards").iterdir():
    packed.unlink()
assert match.main(words) == 0
faults = [p.name for p in (part, base / "run" / "failures.tsv") if p.exists()]
print("left behind:", faults)
sys.exit(bool(faults))
