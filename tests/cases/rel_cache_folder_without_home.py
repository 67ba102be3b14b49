"""A cache folder that cannot be told (a home that is not there) is no internal error."""

import os
import sys

os.environ["MATCHER_CACHE"] = "~nobody_of_this_name/cache"
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, ".")
import match

code = match.main(
    ["assets/demo0.jpg", "assets/demo1.jpg", "weights=outdoor", "offline=true", "output=null"]
)
print("exit code", code)
sys.exit(code not in (2, 4, 5))
