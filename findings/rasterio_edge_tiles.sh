#!/usr/bin/env bash
# rasterio: a tile that reaches over the edge is cut at the edge and stretched to the asked size.
#
# Versions: rasterio 1.4.4, numpy 2.4.6.
#
# Behavior: read(window=..., out_shape=...) of a window that is partly outside of the raster neither
# raises nor fills: it takes the part inside and resamples that to out_shape, so that this tile has
# another scale than its neighbors. The array has the shape that was asked for, and
# window_transform(window) speaks of the whole window. Of boundless the documentation says that True
# permits windows beyond the extent; False, the default, permits them like this. Without out_shape
# the array is smaller, which shows. With boundless=True places are right.
#
# Output seen (1000 x 700 pixels, tiles of 256 x 256 read as 128 x 128, bilinear; each pixel holds
# its own x or y; largest distance between where a pixel should be and where it was read):
#   tile at x    0, y    0   by default   0.0 px   boundless   0.0 px
#   tile at x  512, y  256   by default   0.0 px   boundless   0.0 px
#   tile at x  768, y  256   by default  21.5 px   boundless   0.0 px
#   tile at x  768, y  512   by default  49.1 px   boundless   0.0 px
#   tile at x  -64, y    0   by default  47.3 px   boundless   0.0 px
#
# For a user: large rasters are matched in overlapping tiles at a lower resolution, and matches are
# moved back by the offset and scale of their tile. Those in the tiles along the edges are then off
# by tens of pixels, smoothly, so that they agree with each other and pass RANSAC. Read with
# boundless=True, or cut the window first and scale by its own size.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6 rasterio==1.4.4
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

WIDTH, HEIGHT, TILE, SMALL = 1000, 700, 256, 128
place = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))).astype(np.float32)
with rasterio.open(
    "places.tif", "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=2, dtype="float32"
) as file:
    file.write(place + 1000)  # 0 is outside


def off(file, x, y, boundless):
    """Largest distance in pixels between the place that a value names and where it was read."""
    window = Window(x, y, TILE, TILE)
    values = file.read(
        window=window,
        out_shape=(2, SMALL, SMALL),
        resampling=Resampling.bilinear,
        boundless=boundless,
    )
    steps = (np.arange(SMALL) + 0.5) * TILE / SMALL - 0.5
    wanted = np.stack(np.meshgrid(x + steps, y + steps))
    # The outermost pixels are left out: their values are mixed with what is outside.
    limits = np.array([WIDTH, HEIGHT])[:, None, None] - 3
    inside = ((wanted >= 2) & (wanted <= limits)).all(axis=0)
    return np.abs(values - 1000 - wanted).max(axis=0)[inside].max()


with rasterio.open("places.tif") as file:
    for x, y in ((0, 0), (512, 256), (768, 256), (768, 512), (-64, 0)):
        plain, boundless = (off(file, x, y, kind) for kind in (False, True))
        print(
            f"tile at x {x:4d}, y {y:4d}   by default {plain:5.1f} px   "
            f"boundless {boundless:5.1f} px",
            flush=True,
        )
        over = x < 0 or x + TILE > WIDTH or y + TILE > HEIGHT
        assert (plain > 20) == over
        assert over or plain < 0.1
        assert boundless < 0.1
print("as described")
PY
