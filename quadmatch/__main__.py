"""The command as a module: `python -m quadmatch`."""

from __future__ import annotations

import sys

from matcher.program.command import start

if __name__ == "__main__":
    sys.exit(start())
