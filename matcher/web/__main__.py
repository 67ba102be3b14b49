"""A web page for one pair of images: `python -m matcher.web [key=value ...]`; see `--help`.

It listens on 127.0.0.1 alone unless told otherwise, takes uploads and no paths. Uploads are deleted
within the hour, results when their page is left, both when the server ends.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Annotated

from pydantic import Field

from matcher.errors import Code, UsageError, require_extra
from matcher.terminal.program import program
from matcher.validation.checked import Name, checked, invalid
from matcher.validation.words import describe, options_from_words
from matcher.web.hosts import LOCAL, host_name

OLD_PILLOW = "Pillow {} is here because of Gradio; 13 fixes holes in it: open only images you trust"
USAGE = """\
usage: python -m matcher.web [key=value ...] [--debug]

Serves a page that matches two uploaded images, until it is interrupted.

examples:
  python -m matcher.web
  python -m matcher.web port=8000
  python -m matcher.web address=0.0.0.0 hosts=[workstation,192.168.1.20]

options and their defaults:
{options}
"""


@checked()
class WebOptions:
    """Where the page is served."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port to listen on; null: the first free one from 7860."""
    address: Name = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every network of this machine."""
    hosts: tuple[Name, ...] = ()
    """Names under which browsers may ask, besides localhost; requests under others are refused."""

    def __post_init__(self) -> None:
        for host in self.hosts:
            if host.lower() not in (host_name(host), host_name(f"[{host}]")):
                raise invalid("hosts", host, "names or addresses, without a port")

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """All names under which browsers may ask."""
        return *LOCAL, self.address, *self.hosts


@program(lambda: USAGE.format(options=describe(WebOptions)))
def main(words: list[str]) -> int:
    """Serve the page until interrupted; returns the exit code."""
    options = options_from_words(WebOptions, words)
    with tempfile.TemporaryDirectory(prefix="quadmatch-") as folder:
        # Read when Gradio is imported; its own place is one for all users of a machine, to whom it
        # may be closed, and outlives the server.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        require_extra("gradio", "web", "matcher.web")
        from matcher.web.downloads import can_write_colmap

        if can_write_colmap():  # Later imports are in threads, where it keeps SIGTERM to itself.
            require_extra("pycolmap", "sfm", "matcher.web")
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        with suppress(KeyboardInterrupt):
            serve(options, Path(folder) / "results")
    return 0


def serve(options: WebOptions, results: Path) -> None:
    """Serve the page until a signal ends it; `UsageError` (E204) where it cannot listen."""
    import PIL

    from matcher.runtime import warm_allocator
    from matcher.web.page import build_page, launch

    if int(PIL.__version__.split(".")[0]) < 13:
        sys.stderr.write(f"{OLD_PILLOW.format(PIL.__version__)}\n")
    warm_allocator()
    where = {"server_name": options.address, "server_port": options.port}
    page = build_page(results)
    try:
        try:
            _, url, _ = launch(page, options.allowed_hosts, prevent_thread_lock=True, **where)
        except OSError as error:
            what = f"cannot listen there on port {options.port or 'any'}: it is taken or not ours"
            remedy = "choose another port= or address="
            raise UsageError(Code.UNUSABLE_WORD, options.address, what, remedy) from error
        sys.stdout.write(f"page      {url} (Ctrl-C ends it)\n")
        sys.stdout.flush()
        Event().wait()
    finally:
        page.close(verbose=False)


if __name__ == "__main__":
    sys.exit(main())
