"""The page of `matcher.web` as Gradio blocks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
import numpy as np

from matcher.drawing.attention import draw_attention
from matcher.drawing.attention_trace import trace_attention
from matcher.drawing.matches import write_picture
from matcher.errors import MatcherError
from matcher.results.record import write_matches
from matcher.web.app import GEOMETRIES, LOWEST, WEIGHTS, MatchedPair, find, predictor, show
from matcher.web.folders import PageFolders
from matcher.web.hosts import LOCAL, RequireHost

EXAMPLES = Path(__file__).resolve().parents[2] / "assets"
MAX_UPLOAD = "30mb"
FORGET = 3600
"""Seconds after which uploads are deleted."""
HEIGHT = 300
DOWNLOADS = {"matches.csv": "Download matches (CSV)", "matches.png": "Download picture (PNG)"}
NOTHING = None, "", None, *(gr.update(value=None, interactive=False) for _ in DOWNLOADS)
"""What is shown without matches: picture, numbers, coverage and downloads."""
MANUAL = """
Click a point of image 0 to see what its cell looks at. Above: the blocks that each level of the
QuadTree scored, opened ones outlined. Below: the levels together, beside full and linear attention
on the same features, and the confidence of the match. *Self* layers look at image 0, *cross*
layers at image 1.
"""


def told(action: Any, *values: Any) -> Any:
    """What the action returns; errors that a user can cause are shown on the page."""
    try:
        return action(*values)
    except (MatcherError, ValueError) as error:
        raise refusal(str(error)) from error


def refusal(message: str) -> gr.Error:
    """What the page shows instead of a result; nothing is printed on the server."""
    return gr.Error(message, print_exception=False)


def result() -> Any:
    """A picture to look at, without Gradio's button to publish it."""
    return gr.Image(show_label=False, interactive=False, buttons=["download", "fullscreen"])


def look(
    pair: MatchedPair | None, point: Sequence[float] | None, layer: float | None
) -> np.ndarray | None:
    """The attention of a point of image 0, once there is one."""
    if pair is None or point is None or layer is None:
        return None
    trace = told(trace_attention, predictor(pair.weights), pair.image0, pair.image1)
    drawn = pair.image0, pair.image1, trace, point
    return told(lambda: draw_attention(*drawn, layer=int(layer)))


class Actions:
    """What the page does when it is used; downloads of each open page go below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folders = PageFolders(folder)

    def match(
        self,
        image0: Any,
        image1: Any,
        weights: str,
        threshold: float,
        geometry: str,
        request: gr.Request,
    ) -> tuple:
        pair = told(find, image0, image1, weights)
        return pair, *self.refresh(pair, threshold, geometry, request)

    def refresh(
        self, pair: MatchedPair | None, threshold: float, geometry: str, request: gr.Request
    ) -> tuple:
        if pair is None:
            return NOTHING
        shown = told(show, pair, threshold, geometry)
        place = self.folders.of(request.session_hash)
        write_matches(place / "matches.csv", shown.record)
        write_picture(place / "matches.png", shown.picture)
        numbers = ", ".join(f"{value} {what}" for what, value in shown.numbers if value != "-")
        files = [gr.update(value=str(place / name), interactive=True) for name in DOWNLOADS]
        return shown.picture, f"**{numbers}: {shown.record.verdict}**", shown.coverage, *files

    def point_at(
        self, pair: MatchedPair | None, layer: float | None, event: gr.SelectData
    ) -> tuple:
        if pair is None:
            raise refusal("match the images first")
        return event.index, look(pair, event.index, layer), gr.Tabs(selected="attention")

    def forget(self, request: gr.Request) -> None:
        self.folders.forget(request.session_hash)


def build_page(folder: Path) -> Any:
    """The page as Gradio blocks; downloads are written below `folder`."""
    actions = Actions(folder)
    with gr.Blocks(
        title="quadmatch", analytics_enabled=False, delete_cache=(600, FORGET), fill_width=True
    ) as page:
        gr.Markdown("# quadmatch\nTwo photographs of one place: what is where in the other?")
        pair, point = (gr.State(None, time_to_live=FORGET) for _ in range(2))
        with gr.Row():
            images = [
                gr.Image(label=f"image {n}", type="numpy", sources=["upload"], height=HEIGHT)
                for n in "01"
            ]
        examples = [str(EXAMPLES / f"demo{n}.jpg") for n in "01"]
        if all(Path(path).is_file() for path in examples):
            gr.Examples([examples], images, cache_examples=False, label="Or take these")
        with gr.Row():
            weights = gr.Dropdown(list(WEIGHTS), value="compact", label="weights")
            geometry = gr.Dropdown(list(GEOMETRIES), value="fundamental", label="geometry")
            threshold = gr.Slider(LOWEST, 0.99, value=0.2, step=0.01, label="threshold")
        start = gr.Button("Match", variant="primary")
        numbers = gr.Markdown()
        with gr.Tabs() as tabs:
            with gr.Tab("Matches"):
                picture = result()
            with gr.Tab("Coverage"):
                coverage = result()
            with gr.Tab("Attention", id="attention"):
                gr.Markdown(MANUAL)
                layer = gr.Number(-1, label="layer (0 is the first, -1 the last)", precision=0)
                attention = result()
        with gr.Row():
            files = [gr.DownloadButton(label, interactive=False) for label in DOWNLOADS.values()]
        shown = [picture, numbers, coverage, *files]
        settings = [threshold, geometry]
        start.click(actions.match, [*images, weights, *settings], [pair, *shown])
        for setting in settings:
            setting.change(actions.refresh, [pair, *settings], shown, trigger_mode="always_last")
        images[0].select(actions.point_at, [pair, layer], [point, attention, tabs])
        layer.change(look, [pair, point, layer], attention)
        for image in images:
            emptied = [pair, point, attention, *shown]
            image.change(lambda: (None, None, None, *NOTHING), None, emptied)
        page.unload(actions.forget)
    return page


def launch(page: Any, hosts: Collection[str] = LOCAL, **options: Any) -> Any:
    """Serve the page under the names `hosts`, by default on this machine alone; `options` as
    Gradio's."""
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]

    page.queue(max_size=8, default_concurrency_limit=1)
    options = {"server_name": "127.0.0.1", "share": False, "max_file_size": MAX_UPLOAD} | options
    checks = {"middleware": [Middleware(RequireHost, hosts=hosts)]}
    return page.launch(**options, app_kwargs=checks, footer_links=[])
