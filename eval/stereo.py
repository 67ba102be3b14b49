"""Stereo measured: this project's network beside OpenCV's StereoSGBM on the same pairs.

`python -m eval.stereo [key=value ...]`; a program of its own: `python -m eval` measures matching.
Rendered pairs are drawn from a fixed seed with textures that training has not seen, and pooled.
Real pairs are reported one by one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data.config import Eighths
from data.real.stereo import (
    StereoFiles,
    filled,
    find_kitti,
    find_middlebury,
    find_scene_flow,
    read_stereo,
)
from data.synthetic.stereo import StereoSceneConfig, StereoScenes
from eval.figures_file import write_figures
from eval.metrics import bootstrap
from eval.report.tables import markdown_table
from matcher.errors import Code, UsageError
from matcher.files import check_targets
from matcher.tasks.stereo.predictor import StereoPredictor
from matcher.tasks.stereo.structures import StereoPair
from matcher.terminal.program import program
from matcher.validation.checked import JsonFile, NotNegative, checked, invalid
from matcher.validation.words import describe, options_from_words

USAGE = """\
usage: python -m eval.stereo [key=value ...] [--debug]

options and their defaults:
{options}
"""
BLOCK = 5
SGBM = {
    "blockSize": BLOCK,
    "P1": 8 * BLOCK**2,
    "P2": 32 * BLOCK**2,
    "disp12MaxDiff": 1,
    "uniquenessRatio": 10,
    "speckleWindowSize": 100,
    "speckleRange": 2,
}
"""Settings of OpenCV's semi-global block matching, in its 3-way mode; the range is a third of the
width, in steps of 16."""


class Estimate(NamedTuple):
    """What a method says of a pair."""

    disparity: np.ndarray
    """(H, W) pixels, everywhere"""
    occluded: np.ndarray
    """(H, W) bool"""
    found: np.ndarray
    """(H, W) bool: measured, not filled in from beside"""


Method = Callable[[np.ndarray, np.ndarray], Estimate]


@dataclass(frozen=True)
class StereoScore:
    """Figures of one pair, or of several pooled.

    Of pixels that both views see, as in STTR (Li et al., ICCV 2021), NaN where there are none;
    percentages are 0 to 100.
    """

    end_point: float
    """Mean error in pixels."""
    bad3: float
    """Percentage with an error above 3 pixels."""
    bad3_range: tuple[float, float] | None
    """95% interval of `bad3`, from drawing pairs anew with replacement; None of a single one."""
    d1: float
    """KITTI's percentage: above 3 pixels and above 5% of the truth, occluded pixels included."""
    occlusion_iou: float
    """Mean over both classes, seen and occluded; NaN where the truth does not tell them apart."""
    density: float
    """Percentage of pixels that the method measured itself."""
    seconds: float
    """Wall time of all pairs together."""


class Errors(NamedTuple):
    """Per-pixel figures of one pair, to be pooled."""

    seen: np.ndarray
    """errors of pixels that both views see"""
    outliers: np.ndarray
    """bool of all pixels with truth: outlier by D1"""
    confusion: np.ndarray
    """(2, 2) counts: truth by estimate, seen then occluded"""
    found: np.ndarray
    seconds: float


def errors_of(estimate: Estimate, pair: StereoPair, seconds: float = 0.0) -> Errors:
    """Compare an estimate with the truth of a batch of 1."""
    truth, occluded, valid = (
        x[0].cpu().numpy() for x in (pair.disparity, pair.occluded, pair.valid)
    )
    error = np.abs(estimate.disparity - truth)
    outlier = (error > 3) & (error > 0.05 * truth)
    confusion = np.array(
        [
            [np.sum(valid & (occluded == a) & (estimate.occluded == b)) for b in (False, True)]
            for a in (False, True)
        ]
    )
    return Errors(
        error[valid & ~occluded], outlier[valid], confusion, estimate.found.ravel(), seconds
    )


def score(errors: Sequence[Errors]) -> StereoScore:
    """The figures of all pixels of the pairs together."""
    seen = np.concatenate([e.seen for e in errors])
    return StereoScore(
        end_point=_mean(seen),
        bad3=100 * _mean(seen > 3),
        bad3_range=bad3_range(errors),
        d1=100 * _mean(np.concatenate([e.outliers for e in errors])),
        occlusion_iou=mean_iou(np.sum([e.confusion for e in errors], axis=0)),
        density=100 * float(np.concatenate([e.found for e in errors]).mean()),
        seconds=sum(e.seconds for e in errors),
    )


def _mean(values: np.ndarray) -> float:
    """NaN of none at all."""
    return float(values.mean()) if len(values) else float("nan")


def bad3_range(errors: Sequence[Errors]) -> tuple[float, float] | None:
    """95% interval of the percentage above 3 pixels; None of a single pair."""
    if len(errors) < 2:
        return None
    counts = np.array([(np.sum(e.seen > 3), len(e.seen)) for e in errors])

    def bad3(pairs: np.ndarray) -> float:
        bad, seen = counts[pairs].sum(axis=0)
        return 100 * bad / seen

    return bootstrap(bad3, len(errors), 1000)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean intersection over union of both classes of (2, 2) counts; NaN without occluded ones."""
    if confusion[1].sum() == 0:
        return float("nan")
    hits = np.diag(confusion)
    return float((hits / (confusion.sum(0) + confusion.sum(1) - hits)).mean())


def sgbm(left: np.ndarray, right: np.ndarray) -> Estimate:
    """OpenCV's StereoSGBM (Hirschmueller, PAMI 2008) on (H, W) float32 gray in [0, 1].

    Both images are padded on the left by the range, without which that many columns would have no
    disparity. Pixels without one count as occluded and are filled from their neighbor to the left
    or right with the lower disparity, that is the one behind.
    """
    reach = -(-left.shape[1] // 3 // 16) * 16
    matcher = cv2.StereoSGBM.create(
        minDisparity=0, numDisparities=reach, mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY, **SGBM
    )
    views = [
        cv2.copyMakeBorder(
            (image * 255).round().astype(np.uint8), 0, 0, reach, 0, cv2.BORDER_REPLICATE
        )
        for image in (left, right)
    ]
    disparity = matcher.compute(*views)[:, reach:].astype(np.float32) / 16
    found = disparity >= 0
    return Estimate(filled(disparity, found), ~found, found)


def network(weights: str | None) -> Method:
    """This project's network."""
    predictor = StereoPredictor(weights)

    def match(left: np.ndarray, right: np.ndarray) -> Estimate:
        found = predictor.match(left, right, check=False)
        return Estimate(found.disparity, found.occluded, np.ones(left.shape, bool))

    return match


@checked()
class StereoEvalOptions:
    """What one call measures."""

    rendered: NotNegative = 24
    """Rendered pairs; 0: none."""
    height: Eighths = 128
    """Of the rendered pairs in pixels."""
    width: Eighths = 256
    """Of the rendered pairs in pixels."""
    real: str = ""
    """Folder of pairs in the form of Middlebury, KITTI or Scene Flow; empty: none."""
    weights: str = ""
    """Weights file; empty: the bundled one; none: StereoSGBM alone."""
    photos: str = ""
    """Folder of photographs that paint rendered pairs; empty: procedural textures alone."""
    seed: NotNegative = 9001
    """Seed of the rendered pairs."""
    output: JsonFile = ""
    """JSON file of all figures; empty: none."""

    def __post_init__(self) -> None:
        if not (self.rendered or self.real):
            raise invalid("rendered", self.rendered, "1 or more pairs, or real=FOLDER")


def rendered_pairs(options: StereoEvalOptions) -> Iterator[StereoPair]:
    """The rendered pairs: the same for the same options."""
    size = (options.height, options.width)
    config = StereoSceneConfig(
        sizes=(size,), shares=(1.0,), group=1, pairs=max(options.rendered, 1),
        photos=options.photos or None, texture_seed=1, seed=options.seed,
    )  # fmt: skip
    scenes = StereoScenes(config)
    yield from (scenes[i] for i in range(options.rendered))


def find_pairs(folder: str) -> list[StereoFiles]:
    """Every pair of a folder; `UsageError` (E111) where there is none."""
    found: list[StereoFiles] = []
    for find in (find_middlebury, find_kitti, find_scene_flow):
        with suppress(UsageError):
            found += find(folder)
    if not found:
        what = "no folder with a stereo pair"
        raise UsageError(
            Code.MISSING_FILE, folder, what, "expected the form of Middlebury, KITTI or Scene Flow"
        )
    return found


def measure(method: Method, pair: StereoPair) -> Errors:
    """Run a method on a batch of 1."""
    left, right = (x[0, 0].cpu().numpy() for x in (pair.left, pair.right))
    start = time.perf_counter()
    estimate = method(left, right)
    return errors_of(estimate, pair, time.perf_counter() - start)


def evaluate(options: StereoEvalOptions) -> dict[str, dict[str, StereoScore]]:
    """Scores by pair (``rendered`` pools all rendered ones) and method."""
    methods: dict[str, Method] = {"StereoSGBM": sgbm}
    if options.weights != "none":
        methods["quadtree"] = network(options.weights or None)
    real = find_pairs(options.real) if options.real else []
    scores: dict[str, dict[str, StereoScore]] = {}
    if options.rendered:
        pairs = list(rendered_pairs(options))
        name = f"{len(pairs)} rendered {options.height} x {options.width}"
        scores[name] = {
            method: score([measure(run, pair) for pair in pairs]) for method, run in methods.items()
        }
    for files in real:
        pair = read_stereo(files)
        scores[files.name] = {
            method: score([measure(run, pair)]) for method, run in methods.items()
        }
    return scores


def table(scores: dict[str, dict[str, StereoScore]]) -> str:
    """The scores as a Markdown table."""
    head = ("pairs", "method", "EPE px", "3 px %", "D1 %", "occlusion IoU", "density %", "s")
    rows = [head, ("---",) * len(head)]
    for name, by_method in scores.items():
        for method, s in by_method.items():
            iou = "no truth" if np.isnan(s.occlusion_iou) else f"{s.occlusion_iou:.2f}"
            bad3 = f"{s.bad3:.1f}"
            if s.bad3_range:
                bad3 += f" ({s.bad3_range[0]:.1f} to {s.bad3_range[1]:.1f})"
            figures = (f"{s.end_point:.2f}", bad3, f"{s.d1:.1f}", iou)
            rows.append((name, method, *figures, f"{s.density:.0f}", f"{s.seconds:.1f}"))
    return markdown_table(rows)


@program(lambda: USAGE.format(options=describe(StereoEvalOptions)))
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = options_from_words(StereoEvalOptions, words)
    check_targets([options.output] if options.output else [], [options.weights])
    scores = evaluate(options)
    sys.stdout.write(table(scores))
    if options.output:
        plain = {n: {m: asdict(s) for m, s in row.items()} for n, row in scores.items()}
        report = {"options": asdict(options), "sgbm": SGBM, "scores": plain}
        sys.stdout.write(write_figures(options.output, report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
