"""A principal point far outside of the image is refused or gives no pose; no internal error."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import match

codes = {}
for K in ("[500,500,1e12,240]", "[500,500,320,-3e9]", "[500,500,1e300,240]"):
    codes[K] = match.main(
        [
            "assets/demo0.jpg",
            "assets/demo1.jpg",
            "geometry=essential",
            f"K={K}",
            "output=null",
            "max_side=256",
        ]
    )
print(codes)
sys.exit(not set(codes.values()) <= {0, 2})
