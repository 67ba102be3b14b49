#!/usr/bin/env bash
# pycolmap: importing it silences a SIGTERM handler that is already there, and Python does not know.
#
# Versions: pycolmap 4.2.1, numpy 2.4.6 (Linux).
#
# Behavior: the first `import pycolmap` gives SIGTERM to the logging library of its C++ part, which
# prints a stack trace and ends the process. A handler set by signal.signal() before is never called
# again, but signal.getsignal() still names it. One that is set after the import works, and so does
# the old one if it is set once more. SIGINT keeps its handler, so that Ctrl+C shows nothing.
#
# Output seen (a process that on SIGTERM is to print "saved" and to leave with 0):
#   no import                    named True  prints saved    exit status 0
#   import before the handler    named True  prints saved    exit status 0
#   import after the handler     named True  prints nothing  exit status -15
#   set again after the import   named True  prints saved    exit status 0
#
# For a user: batch systems and machines on loan announce their end by SIGTERM, and training
# frameworks answer with a last checkpoint. Code that evaluates poses often imports pycolmap only
# where it needs it, in the first validation: from then on the checkpoint is not written. Import it
# before handlers are set, or set them again after it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pycolmap==4.2.1
cd "$work"
cat > child.py <<'PY'
import os
import signal
import sys
import time


def save(number, frame):
    print("saved", flush=True)
    sys.exit(0)


for word in sys.argv[1:]:
    if word == "import":
        import pycolmap  # noqa: F401
    else:
        signal.signal(signal.SIGTERM, save)
print(signal.getsignal(signal.SIGTERM) is save, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
PY
"$work/venv/bin/python" - <<'PY'
import subprocess
import sys

CASES = {
    "no import": (["set"], ["True", "saved"], 0),
    "import before the handler": (["import", "set"], ["True", "saved"], 0),
    "import after the handler": (["set", "import"], ["True"], -15),
    "set again after the import": (["set", "import", "set"], ["True", "saved"], 0),
}
for name, (words, *expected) in CASES.items():
    done = subprocess.run(
        [sys.executable, "child.py", *words], capture_output=True, text=True, timeout=60
    )
    named, *printed = done.stdout.split()
    print(
        f"{name:27s}  named {named}  prints {' '.join(printed) or 'nothing':7s}  "
        f"exit status {done.returncode}"
    )
    assert [done.stdout.split(), done.returncode] == expected
print("as described")
PY
