"""Match two photographs: `python match.py IMAGE0 IMAGE1 [key=value ...]`; see `--help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from matcher.program import match


def main(words: Sequence[str] | None = None) -> int:
    """Run the program on the words, by default those of the process; returns its exit code."""
    return match.main(sys.argv[1:] if words is None else words, "python match.py")


if __name__ == "__main__":
    match.catch_signals()
    sys.exit(main())
