"""Photographs of a folder as a bank of square gray textures, decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from matcher.errors import missing

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
REMEDY = "set data.synthetic.photos"


def list_photos(folder: str | Path) -> list[Path]:
    """Image files below `folder` that are not hidden, sorted; a `UsageError` where there is no
    folder or no image."""
    root = Path(folder)
    if not root.is_dir():
        raise missing(root, "no such folder", REMEDY)
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    files = [p for p in files if not any(part[0] == "." for part in p.relative_to(root).parts)]
    if not files:
        raise missing(root, "holds no photograph", f"expected {', '.join(SUFFIXES)}")
    return files


def load_photos(folder: str | Path, side: int, limit: int | None = None) -> np.ndarray:
    """(N, side, side) uint8 textures: the short side of each photograph scaled to `side`, its
    center kept. Files that do not decode are left out; a `UsageError` says that none does."""
    decoded = (read_texture(path, side) for path in list_photos(folder)[:limit])
    textures = [texture for texture in decoded if texture is not None]
    if not textures:
        raise missing(folder, "no photograph decodes", REMEDY)
    return np.stack(textures)


def read_texture(path: Path, side: int) -> np.ndarray | None:
    """(side, side) uint8, or None where the file does not decode."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as image:
            image.draft("L", (side, side))
            gray = image.convert("L")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        return None
    scale = side / min(gray.size)
    width, height = (max(side, round(n * scale)) for n in gray.size)
    if scale != 1:
        gray = gray.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(gray.crop((left, top, left + side, top + side)))
