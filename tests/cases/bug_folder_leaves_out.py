"""Files of a folder that look like pictures and are not taken (.HEIC, .jfif, .jp2) are told. Class: images of a
collection are left out without a word. (COLMAP and ODM users with phones and satellites)"""

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


photo("photos/a.jpg", which=0)
photo("photos/b.jpg", which=1)
(BASE / "photos" / "b.jpg").with_suffix(".jfif").write_bytes(
    (BASE / "photos" / "b.jpg").read_bytes()
)
(BASE / "photos" / "c.HEIC").write_bytes(b"x" * 100)
code, text = program(f"pairs={BASE}/photos", f"output={BASE}/run")
seen = "jfif" in text.lower() or "of 3 images" in text
told = "heic" in text.lower()
end(
    code == 0 and seen and told,
    f"exit code {code}; the .jfif {'is' if seen else 'is not'} told or used, the .HEIC {'is' if told else 'is not'} told",
)
