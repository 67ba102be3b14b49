"""Settings of the whole suite."""

import importlib
import importlib.util
import os

# The suite runs one process for each core (`make test`). Two threads of one process that share a
# core with another process wait for each other most of the time. Set before torch is imported,
# and inherited by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _import_triton_interpreted() -> None:
    """Triton decides when it is imported whether its own functions are interpreted.

    Some part of torch may import it before the tests of the kernel ask for the interpreter.
    """
    import torch

    if importlib.util.find_spec("triton") is None or torch.cuda.is_available():
        return
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.language")
    if before is None:
        del os.environ["TRITON_INTERPRET"]


_import_triton_interpreted()
