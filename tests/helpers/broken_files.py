"""Files as a bad disk or a bad cable leaves them."""

from __future__ import annotations

import random
from collections.abc import Iterator

STORED, LZMA = 0, 14
"""Methods of zip; NumPy uses the first and deflate."""


def flipped(whole: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` copies of a file, each with one to eight wrong bytes."""
    random_ = random.Random(seed)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(random_.choice((1, 1, 2, 8))):
            data[random_.randrange(len(data))] ^= random_.randrange(1, 256)
        yield bytes(data)


def repacked(whole: bytes, method: int) -> bytes:
    """A zip that says of its last member that it is packed by another method."""
    data = bytearray(whole)
    data[data.rindex(b"PK\x01\x02") + 10] = method
    data[data.rindex(b"PK\x03\x04") + 8] = method
    return bytes(data)


def bracketless(whole: bytes) -> bytes:
    """An npz whose last array has a header that Python cannot parse."""
    data = bytearray(whole)
    data[data.index(b"}", data.rindex(b"\x93NUMPY"))] = ord("(")
    return bytes(data)
