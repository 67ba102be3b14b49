"""The quality head of weights, fitted to rendered pairs: python -m eval.quality WEIGHTS [key=value ...]

Options: pairs=140 to fit to, unseen=60 to measure on (other scenes and other textures),
size=192x256, photos=FOLDER, output=FILE (default: beside the weights, where `load_matcher` finds
it), real=FOLDER with pairs_with_gt.txt, of which it is also measured on real_pairs=20, figure=FILE
for the reliability diagram (.png).

Prints the expected calibration error and the area under the ROC curve of right against wrong
matches on pairs that were not fitted to, those of the score beside them, and the diagram as a table.
"""  # noqa: E501

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from eval.benchmarks.folder import EvalPair, read_pairs_with_gt
from eval.benchmarks.rendered import HELD_OUT_SEED
from eval.depth_truth import project
from matcher.errors import Code, UsageError, require_extra
from matcher.files import check_targets
from matcher.geometry.epipolar import epipolar_error, fundamental_from_pose
from matcher.images.load import ImageSource
from matcher.images.opening import unchanged
from matcher.network.photometric import refine_matches
from matcher.network.quality import RIGHT, QualityHead, figures_of
from matcher.predictor import Predictor, load_matcher
from matcher.terminal.program import program
from matcher.validation.checked import NotNegative, Positive, checked, invalid
from matcher.validation.words import options_from_words
from matcher.weights.checkpoint import quality_path, save_quality

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(N,) pixels of matches from the truth, of (N, 2) points in both images."""
SEED = 4_000_037
STEPS = 2000
DECAY = 1e-4
BINS = 10


@checked()
class Options:
    """Which pairs, and where the head goes."""

    pairs: Positive = 140
    unseen: Positive = 60
    size: Annotated[str, Field(pattern=r"^[0-9]+x[0-9]+$", description="HEIGHTxWIDTH")] = "192x256"
    photos: str = ""
    output: str = ""
    figure: str = ""
    real: str = ""
    real_pairs: Positive = 20
    seed: NotNegative = 0

    def __post_init__(self) -> None:
        for name, suffix in (("figure", ".png"), ("output", ".safetensors")):
            path = getattr(self, name)
            if path and not path.lower().endswith(suffix):
                raise invalid(name, path, f"a name ending in {suffix}")

    def scenes(self, seed: int, count: int) -> SyntheticScenes:
        height, width = map(int, self.size.split("x"))
        config = SyntheticConfig(
            size=(height, width), pairs=count, overlap=(0.05, 0.9), photos=self.photos or None,
            texture_seed=seed, seed=seed,
        )  # fmt: skip
        return SyntheticScenes(config)


class Sample(NamedTuple):
    """Matches of many pairs."""

    figures: Tensor
    """(M, 7) of `matcher.network.quality`"""
    right: Tensor
    """(M,) bool: within 3 px of the truth"""
    score: Tensor
    """(M,) of the network"""


def sample(predictor: Predictor, scenes: SyntheticScenes) -> Sample:
    """Matches of all scenes with their truth; `predictor` must not refine."""
    return _joined(_of_scene(predictor, scenes, index) for index in range(len(scenes)))


def sample_photographs(predictor: Predictor, pairs: Sequence[EvalPair], count: int) -> Sample:
    """Matches of `count` pairs spread over a list; those near their epipolar line count as right,
    which some wrong ones are by chance."""
    chosen = np.unique(np.linspace(0, len(pairs) - 1, count).round().astype(int))
    return _joined(_of_photographs(predictor, pairs[index]) for index in chosen)


def _joined(samples: Iterable[Sample]) -> Sample:
    return Sample(*(torch.cat(column) for column in zip(*samples, strict=True)))


def _of_scene(predictor: Predictor, scenes: SyntheticScenes, index: int) -> Sample:
    with torch.inference_mode():
        views = render(scenes[index])
    truth = views.geometry
    if truth is None:
        raise RuntimeError("a rendered pair has no geometry")
    images = [
        (x[0, 0].clamp(0, 1) * 255).round().byte().numpy() for x in (views.image0, views.image1)
    ]
    K0, K1, T = (m[0].double().numpy() for m in (truth.K0, truth.K1, truth.T_0to1))
    cameras = EvalPair("", Path(), Path(), K0=K0, K1=K1, T_0to1=T)
    depths = truth.depth0[0].numpy(), truth.depth1[0].numpy()

    def distance(points0: np.ndarray, points1: np.ndarray) -> np.ndarray:
        there, seen = project(points0, *depths, cameras)
        return np.where(seen, np.linalg.norm(points1 - there, axis=1), np.inf)

    return _measured(predictor, images[0], images[1], distance)


def _of_photographs(predictor: Predictor, pair: EvalPair) -> Sample:
    if pair.K0 is None or pair.K1 is None or pair.T_0to1 is None:
        raise RuntimeError(f"{pair.name}: no pose")
    F = fundamental_from_pose(pair.K0, pair.K1, pair.T_0to1)
    return _measured(predictor, pair.image0, pair.image1, lambda a, b: epipolar_error(a, b, F))


def _measured(
    predictor: Predictor, image0: ImageSource, image1: ImageSource, distance: Distance
) -> Sample:
    placed = predictor.match(image0, image1)
    pair = predictor.reader.read(image0, image1)
    refined = refine_matches(pair, placed, predictor.device)
    right = torch.from_numpy(distance(*refined.numpy()[:2]) < RIGHT)
    return Sample(figures_of(pair, placed, refined).clone(), right, refined.scores.clone())


def fit(data: Sample) -> QualityHead:
    """The head that explains `data` best, by cross-entropy; the same every time."""
    torch.manual_seed(0)
    head = QualityHead()
    head.mean.copy_(data.figures.mean(dim=0))
    head.deviation.copy_(data.figures.std(dim=0).clamp(min=1e-3))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    truth = data.right.float()
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        chosen = torch.randint(len(truth), (4096,), generator=generator)
        loss = F.binary_cross_entropy_with_logits(head.logits(data.figures[chosen]), truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


class Bin(NamedTuple):
    """A bar of a reliability diagram."""

    told: float
    """Mean probability"""
    found: float
    """Share that is right"""
    share: float
    """Of all matches"""


def reliability(probability: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Bins of equal width in which there are matches."""
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        Bin(float(probability[here].mean()), float(right[here].mean()), float(here.mean()))
        for i in range(BINS)
        if (here := number == i).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean difference of what is told and what is found."""
    return sum(abs(b.told - b.found) * b.share for b in bins)


def roc_area(score: np.ndarray, right: np.ndarray) -> float:
    """Probability that a right match has a higher score than a wrong one, ties counting half."""
    _, rank, counts = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    positive, negative = int(right.sum()), int((~right).sum())
    if not positive or not negative:
        return float("nan")
    above = middle[rank][right].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def draw_reliability(path: Path, curves: Mapping[str, Sequence[Bin]]) -> None:
    """What is told against what is found, and how many matches are told it."""
    from eval.report.figures import COLORS, as_text, picture

    with picture(path) as axes:
        axes.plot([0, 1], [0, 1], color="gray", linestyle=":", label="as told")
        for (name, bins), color in zip(curves.items(), COLORS, strict=False):
            told, found, share = zip(*bins, strict=True)
            axes.plot(told, found, color=color, label=as_text(name))
            axes.scatter(told, found, s=[20 + 400 * part for part in share], color=color)
        axes.set(xlabel="told: probability of a right match", ylabel="found: share that is right")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.legend(loc="upper left")


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def tell_measures(name: str, head: QualityHead, data: Sample) -> list[Bin]:
    """Tell how well the head and the score know the right matches; the bins of the head."""
    with torch.inference_mode():
        quality = head(data.figures).double().numpy()
    right = data.right.numpy()
    tell(f"{name}: {len(right)} matches, {100 * right.mean():.1f}% right")
    for what, values in (("score", data.score.double().numpy()), ("quality", quality)):
        error, area = calibration_error(reliability(values, right)), roc_area(values, right)
        tell(f"{what:8} calibration error {error:.3f}, area under ROC {area:.3f}")
    bins = reliability(quality, right)
    for told, found, share in bins:
        tell(f"told {told:.2f}  found {found:.2f}  of {100 * share:4.1f}% of the matches")
    return bins


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    weights, *rest = words
    options = options_from_words(Options, rest)
    if options.figure:
        require_extra("matplotlib", "dev", "figure=")
    predictor = load_matcher(weights, refine="none", zoom="off", offline=True)
    path = predictor.weights
    if path is None:
        raise RuntimeError("weights without a file")
    target = Path(options.output) if options.output else quality_path(path)
    check_targets([target, *([options.figure] if options.figure else [])], [path])
    photographs = read_pairs_with_gt(Path(options.real)) if options.real else ()
    with unchanged(path):  # A training that exports would make it the head of other weights.
        fitted = sample(predictor, options.scenes(SEED + options.seed, options.pairs))
        if not len(fitted.right):
            what = "finds no match to fit to"
            raise UsageError(Code.INVALID_VALUE, weights, what, "train it first")
        head = fit(fitted)
    save_quality(head, target, path)
    tell(f"written  {target}")
    unseen = {"rendered": sample(predictor, options.scenes(HELD_OUT_SEED, options.unseen))}
    if options.real:
        name = Path(options.real).resolve().name
        unseen[name] = sample_photographs(predictor, photographs, options.real_pairs)
    curves = {name: tell_measures(name, head, data) for name, data in unseen.items()}
    if options.figure:
        draw_reliability(Path(options.figure), curves)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
