"""Names of files after what they hold, whatever people call their folders and weights."""

from __future__ import annotations

import hashlib

MOST_BYTES = 100
"""Of a name; file systems take 255, of which suffixes need some."""


def file_label(text: str) -> str:
    """Part of a file name that tells `text` from any other; plain text is its own label."""
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in text)
    if plain == text and len(text.encode()) <= MOST_BYTES:
        return text
    short = plain.encode(errors="replace")[:MOST_BYTES].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:8]}"
