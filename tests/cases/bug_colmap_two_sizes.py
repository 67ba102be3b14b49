"""export=colmap with K= on a folder of upright and lying photographs of one camera, or of two cameras: a
database or a typed error, never "internal error". Class: COLMAP leaves out an image without an exception
and the export does not look. (nerfstudio 3059, colmap 2104, 2565, 2750)"""

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


photo("photos/a.jpg", (160, 120), 0)
photo("photos/b.jpg", (160, 120), 1)
photo("photos/c.jpg", (120, 160), 1)
words = (f"pairs={BASE}/photos", f"output={BASE}/run", "export=colmap", "K=[150,150,79.5,59.5]")
code, text = program(*words)
end(code != 1 and "internal error" not in text, f"exit code {code}: {last(text)}")
