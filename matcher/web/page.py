"""The page of `matcher.web` as Gradio blocks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr  # pyright: ignore[reportMissingImports]
import numpy as np

from matcher.drawing.attention import draw_attention
from matcher.drawing.attention_trace import trace_attention
from matcher.drawing.canvas import arrange, shrunk
from matcher.errors import MatcherError
from matcher.images.load import read_rgb
from matcher.options import MatchOptions
from matcher.web.app import (
    LOWEST,
    WEIGHTS,
    Cameras,
    MatchedPair,
    Shown,
    cameras_of,
    exif_text,
    find,
    find_point,
    options_of,
    pinhole_text,
    predictor,
    read_upload,
    show,
    verdict_text,
)
from matcher.web.downloads import COLMAP, LABELS, can_write_colmap, write_colmap, write_downloads
from matcher.web.folders import PageFolders
from matcher.web.hosts import LOCAL, RequireHost

ASSETS = Path(__file__).resolve().parents[2] / "assets"
EXAMPLES = {
    "flat": ("examples/flat", 312),
    "wide": ("examples/wide", 312),
    "indoor": ("demo", 520),
    "turned": ("examples/turned", 312),
}
"""Name to the path of both images in the assets, but for 0.jpg and 1.jpg, and their focal length;
the principal point is the middle."""
GEOMETRIES = ("none", "fundamental", "homography", "pose")
ESTIMATORS = ("poselib", "magsac")
MAX_UPLOAD = "30mb"
FORGET = 3600
"""Seconds after which uploads are deleted."""
HEIGHT, THUMBNAIL = 280, 120
SIDE_BY_SIDE, ONE_A_ROW = 150, 300
"""Least width of a field in pixels, so that two stay beside each other on a telephone, or not."""
NOTHING = (
    None, "", None, None, "", "", *(gr.update(value=None, interactive=False) for _ in LABELS),
)  # fmt: skip
"""What is shown without matches: picture, verdict, coverage, warp, texts and downloads."""
NO_POINT = None, None, None, "", None
"""The point, its two pictures, its text and its attention before a click."""
CAMERA_MANUAL = """
The camera of each image, for the pose: `fx, fy, cx, cy` in pixels, behind them the lens if it bends
lines (`OPENCV, k1, k2, p1, p2`), or a line of COLMAP's `cameras.txt`. EXIF fills it in; where it is
empty, the focal length is found from the matches.
"""
POINT_MANUAL = "Click a point of image 0 above to see where it is in image 1."
ATTENTION_MANUAL = """
What the cell of the point that you clicked looks at. Above: the blocks that each level of the
QuadTree scored, opened ones outlined. Below: the levels together, beside full and linear attention
on the same features, and the confidence of the match. *Self* layers look at image 0, *cross*
layers at image 1.
"""
CSS = """
.examples .grid-wrap { height: auto; min-height: 0; max-height: none; overflow: visible }
.examples .grid-container { grid-template-rows: auto; grid-auto-rows: auto }
.examples .thumbnail-item { aspect-ratio: 8 / 3; height: auto; min-width: 0 }
@media (max-width: 600px) {
  .examples .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)) !important }
}
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
    matcher = predictor(pair.weights, pair.max_side)
    trace = told(trace_attention, matcher, pair.image0, pair.image1)
    drawn = pair.image0, pair.image1, trace, point
    return told(lambda: draw_attention(*drawn, layer=int(layer)))


def examples() -> dict[str, list[str]]:
    """The paths of the pairs that are there: an installed package has none."""
    paths = {
        name: [str(ASSETS / f"{path}{n}.jpg") for n in "01"] for name, (path, _) in EXAMPLES.items()
    }
    return {name: pair for name, pair in paths.items() if all(map(Path.is_file, map(Path, pair)))}


def thumbnail(paths: Sequence[str]) -> np.ndarray:
    """Both images of a pair beside each other."""
    canvas, *_ = arrange(*map(read_rgb, paths))
    return shrunk(canvas, THUMBNAIL / canvas.shape[0])


class Actions:
    """What the page does when it is used; downloads of each open page go below `folder`.

    Gradio gives the values of controls one by one: `settings` are those of `offer_settings`.
    """

    def __init__(self, folder: Path) -> None:
        self.folders = PageFolders(folder)

    def match(
        self, image0: str | None, image1: str | None, request: gr.Request, *settings: Any
    ) -> tuple:
        *values, camera0, camera1 = settings
        options = told(options_of, *values)
        images = [told(read_upload, path, number) for number, path in enumerate((image0, image1))]
        told(cameras_of, (camera0, camera1), images)
        pair = told(find, *images, options)
        return pair, *self.refresh(pair, request, *settings)

    def refresh(self, pair: MatchedPair | None, request: gr.Request, *settings: Any) -> tuple:
        if pair is None:
            return NOTHING
        *values, camera0, camera1 = settings
        options = told(options_of, *values)
        cameras = told(cameras_of, (camera0, camera1), (pair.image0, pair.image1))
        shown = told(show, pair, options, cameras)
        files = self.downloads(self.folders.of(request.session_hash), pair, shown, cameras)
        buttons = [gr.update(value=files.get(n), interactive=n in files) for n in LABELS]
        texts = shown.warp_text, shown.pose_text
        return shown.picture, verdict_text(shown), shown.coverage, shown.warp, *texts, *buttons

    def downloads(
        self, folder: Path, pair: MatchedPair, shown: Shown, cameras: Cameras
    ) -> dict[str, str]:
        """Name to path of the files that can be written."""
        files = write_downloads(folder, shown)
        if can_write_colmap():
            images = pair.image0, pair.image1
            try:
                files[COLMAP] = write_colmap(folder, images, shown.record.matches, cameras)
            except MatcherError as error:
                gr.Warning(f"no file for COLMAP: {error}")
        return {name: str(path) for name, path in files.items()}

    def point_at(self, pair: MatchedPair | None, event: gr.SelectData) -> tuple:
        if pair is None:
            raise refusal("match the images first")
        return event.index, *told(find_point, pair, event.index), None, gr.Tabs(selected="point")

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
            images = [offer_upload(f"image {n}") for n in "01"]
        strip = offer_examples()
        settings = offer_settings()
        start = gr.Button("Match", variant="primary")
        verdict = gr.Markdown()
        with gr.Tabs() as tabs:
            with gr.Tab("Matches"):
                picture = result()
            with gr.Tab("Coverage"):
                coverage = result()
            with gr.Tab("Warp"):
                warp_text, warp = gr.Markdown(), result()
            with gr.Tab("Pose"):
                pose = gr.Markdown()
            with gr.Tab("Point", id="point"):
                gr.Markdown(POINT_MANUAL)
                where = gr.Markdown()
                with gr.Row():
                    ends = [result(), result()]
            with gr.Tab("Attention"):
                gr.Markdown(ATTENTION_MANUAL)
                layer = gr.Number(-1, label="layer (0 is the first, -1 the last)", precision=0)
                attention = result()
        with gr.Row():
            files = [
                gr.DownloadButton(label, interactive=False, min_width=SIDE_BY_SIDE)
                for label in LABELS.values()
            ]
        shown = [picture, verdict, coverage, warp, warp_text, pose, *files]
        of_point = [point, *ends, where, attention]
        values = list(settings.values())
        cameras = [settings["camera0"], settings["camera1"]]
        strip.select(take_example, None, [*images, *cameras])
        start.click(actions.match, [*images, *values], [pair, *shown])
        anew = {"fn": actions.refresh, "inputs": [pair, *values], "outputs": shown}
        nothing = {
            "fn": lambda: (None, *NO_POINT, *NOTHING), "inputs": None,
            "outputs": [pair, *of_point, *shown],
        }  # fmt: skip
        for name, setting in settings.items():
            if setting in cameras:  # Half of a camera is none.
                gr.on([setting.submit, setting.blur], **anew, trigger_mode="always_last")
            else:  # What was matched with other weights or at another size is not shown as theirs.
                again = name in ("weights", "max_side")
                setting.change(**(nothing if again else anew), trigger_mode="always_last")
        attended = {"fn": look, "inputs": [pair, point, layer], "outputs": attention}
        images[0].select(actions.point_at, pair, [*of_point, tabs]).then(**attended)
        layer.change(**attended)
        for number, (image, camera) in enumerate(zip(images, cameras, strict=True)):
            image.upload(partial(told, exif_text), [image, gr.State(number)], camera)
            image.change(**nothing)
        page.unload(actions.forget)
    return page


def offer_upload(label: str) -> Any:
    """A field for an image, which is opened when it is matched."""
    field = gr.Image(
        label=label, type="filepath", sources=["upload"], height=HEIGHT, min_width=SIDE_BY_SIDE
    )
    # Gradio's own opens the file with Pillow, and says nothing but "Error" where that fails.
    field.preprocess = lambda upload: upload and upload.path
    return field


def offer_examples() -> Any:
    """A strip of pairs to click at."""
    pairs = examples()
    if pairs:
        gr.Markdown("Or take a pair of these:")
    return gr.Gallery(
        [(thumbnail(paths), name) for name, paths in pairs.items()],
        visible=bool(pairs),
        show_label=False,
        columns=len(EXAMPLES),
        object_fit="contain",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_classes="examples",
    )


def take_example(event: gr.SelectData) -> tuple:
    """Both images and both cameras of the pair that was clicked."""
    chosen = (pair for i, pair in enumerate(examples().items()) if i == event.index)
    name, paths = next(chosen, (None, None))
    if name is None or paths is None:
        raise refusal("there is no such example")
    images = [read_rgb(path) for path in paths]
    return *images, *(pinhole_text(image, EXAMPLES[name][1]) for image in images)


def offer_settings() -> dict[str, Any]:
    """The controls: those of `options_of`, in its order, and the cameras."""
    default = MatchOptions()
    with gr.Row():
        weights = gr.Dropdown(list(WEIGHTS), value=default.weights, label="weights")
        geometry = gr.Dropdown(list(GEOMETRIES), value="fundamental", label="geometry")
    with gr.Accordion("More settings", open=False):
        with gr.Row():
            threshold = offer_slider(LOWEST, 0.99, value=0.2, step=0.01, label="threshold")
            max_side = offer_slider(256, 2048, value=default.max_side, step=32, label="max_side")
        with gr.Row():
            # Gradio makes 0 of an empty field.
            top_k = gr.Number(0, label="top_k (0: all matches)", precision=0, minimum=0)
            estimator = gr.Dropdown(list(ESTIMATORS), value=default.estimator, label="estimator")
        gr.Markdown(CAMERA_MANUAL)
        with gr.Row():
            camera0, camera1 = (
                gr.Textbox(
                    "",
                    label=f"camera {n}",
                    placeholder="fx, fy, cx, cy; empty: not known",
                    max_length=500,
                    min_width=ONE_A_ROW,
                )
                for n in "01"
            )
    return {
        "weights": weights,
        "geometry": geometry,
        "threshold": threshold,
        "max_side": max_side,
        "top_k": top_k,
        "estimator": estimator,
        "camera0": camera0,
        "camera1": camera1,
    }


def offer_slider(low: float, high: float, **how: Any) -> Any:
    """A slider that stands where it began while the number beside it is deleted."""
    field = gr.Slider(low, high, **how)
    within = field.preprocess
    field.preprocess = lambda number: within(field.value if number is None else number)
    return field


def launch(page: Any, hosts: Collection[str] = LOCAL, **options: Any) -> Any:
    """Serve the page under the names `hosts`, by default on this machine alone; `options` as
    Gradio's."""
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]

    page.queue(max_size=8, default_concurrency_limit=1)
    options = {"server_name": "127.0.0.1", "share": False, "quiet": True} | options
    options["max_file_size"] = MAX_UPLOAD
    checks = {"middleware": [Middleware(RequireHost, hosts=hosts)]}
    return page.launch(**options, app_kwargs=checks, footer_links=[], css=CSS)
