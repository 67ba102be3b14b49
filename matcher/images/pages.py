"""Pages of a TIFF: how many images it holds, and the mask that GDAL keeps beside the first.

Besides images a TIFF may hold smaller copies of one, and masks of a bit a pixel. Pillow cannot read
the latter, not even to count pages.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import TiffImagePlugin

from matcher.images.bands import BITS, LENGTH, WIDTH, count_bands, decode_plane, first_number

SUBFILE, REDUCED, MASK = 254, 1, 4
"""The tag that says what a page is, and its bits for a smaller copy and for a mask."""
MOST_PAGES = 10_000

Directory = TiffImagePlugin.ImageFileDirectory_v2


def read_directories(data: bytes) -> list[Directory]:
    """The directories of the pages of a TIFF, the first `MOST_PAGES`; whatever errors Pillow has
    for one that is damaged, and ValueError for one that is cut off."""
    pages: list[Directory] = []
    file, seen = BytesIO(data), set[int]()
    following = Directory(data[: 16 if b"+" in data[2:4] else 8]).next
    while following and following not in seen and len(pages) < MOST_PAGES:
        seen.add(following)
        page = Directory(data[: 16 if b"+" in data[2:4] else 8])
        file.seek(following)
        page.load(file)
        if pages and not (WIDTH in page and LENGTH in page):
            raise ValueError(f"page {len(pages) + 1} is cut off")
        pages.append(page)
        following = page.next
    return pages


def count_images(pages: list[Directory]) -> int:
    """Those that are neither a smaller copy nor a mask; the first is one."""
    return 1 + sum(not first_number(page, SUBFILE, 0) & (REDUCED | MASK) for page in pages[1:])


def mask_of(data: bytes, pages: list[Directory]) -> np.ndarray | None:
    """(H, W) bool as stored of the mask of the first page, False where that holds nothing; None
    where there is no mask. Errors as those of Pillow."""
    size = [first_number(pages[0], tag, 0) for tag in (WIDTH, LENGTH)]
    for page in pages[1:]:
        kind = first_number(page, SUBFILE, 0) & (REDUCED | MASK)
        same = [first_number(page, tag, 0) for tag in (WIDTH, LENGTH)] == size
        plain = count_bands(page) == 1 and first_number(page, BITS, 1) in (1, 8)
        if kind == MASK and same and plain:
            return decode_plane(data, page) > 0
    return None
