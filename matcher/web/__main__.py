"""A web page for one pair of images: `python -m matcher.web` (needs the extra ``web``).

It listens on 127.0.0.1 alone, takes uploads and no paths. Uploads are deleted within the hour,
results when their page is left.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import PIL

from matcher.errors import program, require_extra
from matcher.runtime import warm_allocator

OLD_PILLOW = "Pillow {} is here because of Gradio; 13 fixes holes in it: open only images you trust"


@program
def main(_: list[str]) -> int:
    """Serve the page until interrupted; returns the exit code."""
    require_extra("gradio", "web", "matcher.web")
    from matcher.web.page import build_page, launch

    if int(PIL.__version__.split(".")[0]) < 13:
        sys.stderr.write(f"{OLD_PILLOW.format(PIL.__version__)}\n")
    warm_allocator()
    with tempfile.TemporaryDirectory(prefix="quadmatch-") as folder:
        launch(build_page(Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
