"""The documentation says that lists of hloc are read as they are: names between spaces, so also names with an
apostrophe, and a first name that begins with "#". Class: a line is skipped or refused though it has two
names. (hloc 128, 183)"""

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


from matcher.batch.pairs import read_pairs
from matcher.errors import MatcherError

faults = []
for pair in (("l'eglise0.jpg", "b.jpg"), ("#1.jpg", "b.jpg"), ("a'1.jpg", "a'2.jpg")):
    path = BASE / "list.txt"
    path.write_text(f"x.jpg y.jpg\n{pair[0]} {pair[1]}\n")
    try:
        if list(read_pairs(str(path)))[1:] != [pair]:
            faults.append(f"{pair} is read as {list(read_pairs(str(path)))[1:]}")
    except MatcherError as error:
        faults.append(f"{pair} is refused: {str(error).split(':', 1)[1][:60]}")
end(not faults, faults)
