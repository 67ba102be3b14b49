#!/usr/bin/env bash
# rasterio: building overviews moves what is read at a lower resolution, by up to half a step of it.
#
# Versions: rasterio 1.4.4 (GDAL 3.10.3), numpy 2.4.6.
#
# Behavior: read(out_shape=..., resampling=...) of a raster with overviews takes the overview next
# to the asked size, and resampling says only how that is brought to this size. build_overviews
# samples with Resampling.nearest by default, which keeps the first pixel of every 2 x 2, 4 x 4 and
# so on, not the middle one. All pixels are then read from up to the left of where they should be:
# by (factor - 1) / 2. Without overviews the same call is right, and nearest is off by 0.5 px the
# other way. Neither transform nor bounds say anything of it.
#
# Output seen (2048 x 1536 pixels, each holds its own x and y; mean of x read less x of the place,
# in pixels of the full image; y is alike):
#   read at                        1/2     1/4     1/8    1/16
#   no overviews, average        +0.00   +0.00   +0.00   +0.00
#   no overviews, nearest        +0.50   +0.50   +0.50   +0.50
#   by default, average          -0.50   -1.50   -3.50   -7.50
#   by default, nearest          -0.50   -1.50   -3.50   -7.50
#   by default, cubic            -0.50   -1.50   -3.50   -7.50
#   with average, average        +0.00   +0.00   +0.00   +0.00
#   by default, ignored          +0.00   +0.00   +0.00   +0.00
#
# For a user: aerial and satellite images are matched at a lower resolution first, and matches are
# scaled to the full one. If one image of a pair has such overviews, all its points are shifted
# alike: RANSAC keeps them, and the registration is off by whole pixels, by more the coarser the
# level. Averages are not averages either, but samples. Build overviews with average, or open files
# with overview_level=-1.
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

WIDTH, HEIGHT, FACTORS = 2048, 1536, (2, 4, 8, 16)
PLACE = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))).astype(np.float32)


def write(name, *how):
    with rasterio.open(
        name, "w", driver="GTiff", width=WIDTH, height=HEIGHT, count=2, dtype="float32"
    ) as file:
        file.write(PLACE)
    with rasterio.open(name, "r+") as file:
        if name != "without.tif":
            file.build_overviews(FACTORS, *how)


def shift(name, factor, resampling, **options):
    """(2,) mean of the place that is read less the place that it stands for, x and y."""
    with rasterio.open(name, **options) as file:
        values = file.read(
            out_shape=(2, HEIGHT // factor, WIDTH // factor), resampling=resampling
        )
    steps = (np.arange(WIDTH // factor) + 0.5) * factor - 0.5
    wanted = np.stack(np.meshgrid(steps, steps[: HEIGHT // factor]))
    inner = (slice(None), slice(3, -3), slice(3, -3))  # cubic is of another kind at the edges
    return (values - wanted)[inner].mean(axis=(1, 2))


write("without.tif")
write("default.tif")
write("average.tif", Resampling.average)
CASES = {
    "no overviews, average": ("without.tif", Resampling.average, {}, [0, 0, 0, 0]),
    "no overviews, nearest": ("without.tif", Resampling.nearest, {}, [0.5, 0.5, 0.5, 0.5]),
    "by default, average": ("default.tif", Resampling.average, {}, [-0.5, -1.5, -3.5, -7.5]),
    "by default, nearest": ("default.tif", Resampling.nearest, {}, [-0.5, -1.5, -3.5, -7.5]),
    "by default, cubic": ("default.tif", Resampling.cubic, {}, [-0.5, -1.5, -3.5, -7.5]),
    "with average, average": ("average.tif", Resampling.average, {}, [0, 0, 0, 0]),
    "by default, ignored": (
        "default.tif", Resampling.average, {"overview_level": -1}, [0, 0, 0, 0],
    ),
}
print(f"GDAL {rasterio.__gdal_version__}")
print(f"{'read at':24s}", *(f"{f'1/{factor}':>7s}" for factor in FACTORS))
for name, (path, resampling, options, expected) in CASES.items():
    shifts = np.stack([shift(path, factor, resampling, **options) for factor in FACTORS])
    print(f"{name:24s}", *(f"{x + 0.0:+7.2f}" for x in shifts[:, 0].round(2)), flush=True)
    assert np.abs(shifts - np.array(expected)[:, None]).max() < 0.01, (name, shifts)
print("as described")
PY
