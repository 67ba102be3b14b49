"""Settings of the whole suite."""

import os

# The suite runs one process for each core (`make test`). Two threads of one process that share a
# core with another process wait for each other most of the time. Set before torch is imported,
# and inherited by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
