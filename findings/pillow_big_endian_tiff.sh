#!/usr/bin/env bash
# Pillow: compressed big-endian TIFFs of signed 16 bits, 32 bits or floats come with swapped bytes.
#
# Versions: pillow 13.0.0, rasterio 1.4.4 (to write them, and to read them as a check), numpy 2.4.6.
#
# Behavior: a TIFF may store its numbers in either order of bytes, and GDAL writes both. Where the
# file is compressed Pillow lets libtiff decode it, which hands out numbers in the order of the
# machine; Pillow then swaps those of int16, int32 and float32 as if they still were in the order of
# the file. Without compression the same numbers are right, and uint16 is right in both forms. No
# error and no warning is raised.
#
# Output seen (64 x 64 elevations from 200 to 900 m, stored in big-endian order; largest difference
# between what Pillow reads and what was written, on a little-endian machine):
#   uint16   none    0          deflate  0
#   int16    none    0          deflate  33660
#   int32    none    0          deflate  2.147e+09
#   float32  none    0          deflate  900 (all that is read lies near 0)
#
# For a user: elevation models and thermal or SAR rasters are of these types. A matcher that reads
# them by Pillow gets noise whose histogram, once stretched, looks like an image of low quality, and
# finds no matches. Read them with rasterio or tifffile, or swap the bytes back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 pillow==13.0.0 rasterio==1.4.4
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
import rasterio
from PIL import Image

SIDE = 64
x, y = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
HEIGHTS = np.round(550 + 200 * np.sin(x / 9) + 150 * np.cos(y / 7))
assert sys.byteorder == "little"


def written(kind, compression):
    path = f"{kind}_{compression}.tif"
    values = HEIGHTS.astype(kind)
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype=kind,
        ENDIANNESS="BIG", COMPRESS=compression,
    ) as file:
        file.write(values, 1)
    assert open(path, "rb").read(2) == b"MM"
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), values)
    return path


for kind in ("uint16", "int16", "int32", "float32"):
    off = {}
    for compression in ("none", "deflate"):
        read = np.asarray(Image.open(written(kind, compression))).astype(np.float64)
        off[compression] = np.nan_to_num(np.abs(read - HEIGHTS), nan=np.inf).max()
    print(f"{kind:8s} none {off['none']:10.4g}    deflate {off['deflate']:10.4g}")
    assert off["none"] == 0
    assert off["deflate"] == 0 if kind == "uint16" else off["deflate"] > 500
print("as described")
PY
