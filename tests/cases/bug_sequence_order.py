"""select=sequential takes frames without leading zeros (1, 2, ..., 10, 11) in the order of the film, or warns.
Class: order of names. (colmap 1063 and 2900, CorbeauSplat pull 3)"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import matcher

ROOT = Path(matcher.__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from PIL import Image

BASE = Path(tempfile.mkdtemp())


def end(good, what):
    print("PASS" if good else "FAIL", what)
    sys.exit(not good)


def photo(name, size=(160, 120), which=0):
    """A small copy of a demo photograph under BASE."""
    path = BASE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(ROOT / "assets" / f"demo{which}.jpg").convert("RGB").resize(size)
    image.save(path, quality=95)


def program(*words):
    """Exit code of match.py and all that it printed."""
    import match

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = match.main([*words, "threads=1", "max_side=160"])
    return code, text.getvalue()


def last(text):
    return text.strip().splitlines()[-1].replace(str(BASE), "BASE")[:200] if text.strip() else ""


from matcher.batch.pairs import find_pairs

for number in range(1, 13):
    photo(f"film/frame{number}.jpg", (32, 32))
pairs, _ = find_pairs(str(BASE / "film"), select="sequential", window=1)
found = [(pairs.names[i], pairs.names[j]) for i, j in pairs.index]
end(("frame9.jpg", "frame10.jpg") in found, f"neighbours: {found[:4]}")
