"""Top-K recall of a model on rendered scenes: python -m eval.topk_recall WEIGHTS [key=value ...]

Options: pairs=40, size=480x640, photos=FOLDER, seed=5. Prints one line a level, coarsest first.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence

from conf import plain_options
from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from data.synthetic.scene import SceneBatch
from matcher.config import MatcherConfig
from matcher.errors import Code, UsageError, program
from matcher.structures import ImagePair
from matcher.training.topk_recall import LevelRecall, topk_recall
from matcher.validation.checked import invalid
from matcher.weights.checkpoint import load_safetensors

DEFAULTS = {"pairs": "40", "size": "480x640", "photos": "", "seed": "5"}


def scenes_of(options: dict[str, str], canvas: int) -> SyntheticConfig:
    """Scenes of seeds that no training uses.

    Args:
        options: as typed, all of `DEFAULTS`.
        canvas: sides must be multiples of it, `MatcherConfig.canvas` pixels.

    Raises:
        UsageError: a value that cannot work.
    """
    for name, pattern, expected in (
        ("pairs", r"\d+", "a number"),
        ("size", r"\d+x\d+", "HEIGHTxWIDTH"),
        ("seed", r"\d+", "a number"),
    ):
        if not re.fullmatch(pattern, options[name], re.ASCII):
            raise invalid(name, options[name], expected)
    height, width = map(int, options["size"].split("x"))
    if height % canvas or width % canvas:
        raise invalid("size", options["size"], f"multiples of {canvas} for this model")
    return SyntheticConfig(
        size=(height, width),
        pairs=int(options["pairs"]),
        photos=options["photos"] or None,
        seed=2_000_003 + int(options["seed"]),
    )


def rendered_pairs(config: SyntheticConfig) -> Iterator[ImagePair]:
    scenes = SyntheticScenes(config)
    for index in range(config.pairs):
        yield render(SceneBatch.collate([scenes[index]]))


def require_lists(weights: str, config: MatcherConfig) -> None:
    """Whether a model has the lists that this program is about.

    Raises:
        UsageError: no cross layer with QuadTree attention.
    """
    transformer = config.transformer
    if transformer.attention != "quadtree" or "cross" not in transformer.layers:
        what = f"has {transformer.attention} attention in layers {', '.join(transformer.layers)}"
        raise UsageError(
            Code.INVALID_VALUE, weights, what, "top-K recall needs a QuadTree cross layer"
        )


def mean_recall(batches: Sequence[Sequence[LevelRecall]]) -> list[LevelRecall]:
    """Recall over all matches of several batches, coarsest level first."""
    return [_mean(levels) for levels in zip(*batches, strict=True)]


def _mean(levels: Sequence[LevelRecall]) -> LevelRecall:
    seen = [level for level in levels if level.matches]
    total = sum(level.matches for level in seen)
    if not total:
        return levels[0]
    return levels[0]._replace(
        union=sum(level.union * level.matches for level in seen) / total,
        per_head=sum(level.per_head * level.matches for level in seen) / total,
        matches=total,
    )


@program
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    if not words or words[0] in ("--help", "-h"):
        sys.stdout.write(__doc__ or "")
        return 0 if words else 2
    options = plain_options(words[1:], DEFAULTS)
    model = load_safetensors(words[0])
    require_lists(words[0], model.config)
    pairs = rendered_pairs(scenes_of(options, model.config.canvas))
    levels = mean_recall([topk_recall(model, pair) for pair in pairs])
    sys.stdout.write("level keys  union  per head  random  random union  matches\n")
    for i, c in enumerate(levels):
        sys.stdout.write(
            f"{i:5d} {c.keys:4d} {c.union:6.3f} {c.per_head:9.3f} {c.random:7.3f}"
            f" {c.random_union:13.3f} {c.matches:8d}\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
