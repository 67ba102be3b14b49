"""The page of `matcher.web` as Gradio blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
import numpy as np

from matcher.attention_drawing import draw_attention
from matcher.attention_map import trace_attention
from matcher.drawing import write_picture
from matcher.errors import MatcherError
from matcher.storage import write_matches
from matcher.web import GEOMETRIES, LOWEST, WEIGHTS, Found, find, predictor, show

EXAMPLES = Path(__file__).resolve().parents[1] / "assets"


def guarded(action: Any, *values: Any) -> Any:
    """What the action returns; errors that a user can cause are shown on the page."""
    try:
        return action(*values)
    except (MatcherError, ValueError) as error:
        raise gr.Error(str(error)) from error


def build_page(folder: Path) -> Any:
    """The page as Gradio blocks; downloads are written below `folder`."""

    def refresh(found: Found | None, threshold: float, geometry: str, request: gr.Request) -> tuple:
        if found is None:
            return None, None, None, None, None
        shown = guarded(show, found, threshold, geometry)
        place = folder / str(request.session_hash)
        place.mkdir(parents=True, exist_ok=True)
        write_matches(place / "matches.csv", shown.record)
        write_picture(place / "matches.png", shown.picture)
        files = str(place / "matches.csv"), str(place / "matches.png")
        return shown.picture, shown.coverage, shown.numbers, *files

    def match(image0: Any, image1: Any, weights: str) -> Found:
        return guarded(find, image0, image1, weights)

    def look(found: Found | None, weights: str, layer: int, event: gr.SelectData) -> np.ndarray:
        if found is None:
            raise gr.Error("match the images first")
        trace = guarded(trace_attention, predictor(weights), found.image0, found.image1)
        number = int(layer) % len(trace.layers)
        drawn = (found.image0, found.image1, trace, event.index)
        return guarded(lambda: draw_attention(*drawn, layer=number))

    with gr.Blocks(title="quadmatch", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# quadmatch\nTwo photographs of one place; what is where in the other?")
        found = gr.State(None)
        with gr.Row():
            images = [gr.Image(label=f"image {n}", type="numpy", sources=["upload"]) for n in "01"]
        examples = [str(EXAMPLES / f"demo{n}.jpg") for n in (0, 1)]
        if all(Path(path).is_file() for path in examples):
            gr.Examples([examples], images, cache_examples=False)
        with gr.Row():
            weights = gr.Dropdown(list(WEIGHTS), value="compact", label="weights")
            geometry = gr.Dropdown(list(GEOMETRIES), value="fundamental", label="geometry")
            threshold = gr.Slider(LOWEST, 0.99, value=0.2, step=0.01, label="threshold")
        start = gr.Button("Match", variant="primary")
        picture = gr.Image(label="matches", interactive=False)
        numbers = gr.Dataframe(headers=["what", "value"], label="numbers", interactive=False)
        with gr.Row():
            table = gr.DownloadButton("Download matches (CSV)")
            drawing = gr.DownloadButton("Download picture (PNG)")
        coverage = gr.Image(label="coverage", interactive=False)
        gr.Markdown("Click a point of image 0 to see what its cell looks at.")
        layer = gr.Number(1, label="layer of the transformer", precision=0, minimum=0)
        attention = gr.Image(label="attention", interactive=False)
        shown = [picture, coverage, numbers, table, drawing]
        settings = [found, threshold, geometry]
        start.click(match, [*images, weights], found).success(refresh, settings, shown)
        threshold.release(refresh, settings, shown)
        geometry.change(refresh, settings, shown)
        images[0].select(look, [found, weights, layer], attention)
    return page
