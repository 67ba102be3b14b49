"""Names that export=colmap cannot take ("DJI 0001.jpg") are told before anything is matched, or are taken: after
the matching it is too late, as a run cannot go on under other names (E206). Class: an export that cannot
work is found out after hours. (colmap 733, LichtFeld-Studio 810)"""

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


photo("photos/DJI 0001.jpg", which=0)
photo("photos/DJI 0002.jpg", which=1)
code, text = program(f"pairs={BASE}/photos", f"output={BASE}/run", "export=colmap")
shards = len(list((BASE / "run" / "shards").glob("*"))) if (BASE / "run").exists() else 0
end(
    code == 0 or (shards == 0 and code == 2 and "E209" in text),
    f"exit code {code} after {shards} shards: {last(text)}",
)
