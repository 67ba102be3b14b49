"""Top-K recall of a model on rendered scenes: python -m eval.topk_recall WEIGHTS [key=value ...]

Options: pairs=40, size=480x640, photos=FOLDER, seed=5. Prints one line a level, coarsest first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field

from data.config import SyntheticConfig
from data.synthetic.dataset import SyntheticScenes
from data.synthetic.render import render
from matcher.config import MatcherConfig
from matcher.errors import Code, UsageError
from matcher.structures import ImagePair
from matcher.terminal.program import program
from matcher.training.topk_recall import LevelRecall, topk_recall
from matcher.validation.checked import NotNegative, Positive, checked, invalid
from matcher.validation.words import options_from_words
from matcher.weights.checkpoint import load_safetensors
from matcher.weights.hub import resolve


@checked()
class Options:
    """Scenes of seeds that no training uses."""

    pairs: Positive = 40
    size: Annotated[str, Field(pattern=r"^[0-9]+x[0-9]+$", description="HEIGHTxWIDTH")] = "480x640"
    photos: str = ""
    seed: NotNegative = 5

    def rendered(self, canvas: int) -> Iterator[ImagePair]:
        """The pairs, each a batch of 1; sides are multiples of `canvas` pixels, as the model needs,
        or E201."""
        height, width = map(int, self.size.split("x"))
        if height % canvas or width % canvas:
            raise invalid("size", self.size, f"multiples of {canvas} for this model")
        photos, seed = self.photos or None, 2_000_003 + self.seed
        size = height, width
        config = SyntheticConfig(size=size, pairs=self.pairs, photos=photos, seed=seed)
        yield from (render(scene) for scene in SyntheticScenes(config))


def require_lists(weights: str, config: MatcherConfig) -> None:
    """Refuse a model without cross layers of QuadTree attention, which have the lists (E201)."""
    transformer = config.transformer
    if transformer.attention != "quadtree" or "cross" not in transformer.layers:
        what = f"has {transformer.attention} attention in layers {', '.join(transformer.layers)}"
        remedy = "top-K recall needs a QuadTree cross layer"
        raise UsageError(Code.INVALID_VALUE, weights, what, remedy)


def mean_recall(batches: Sequence[Sequence[LevelRecall]]) -> list[LevelRecall]:
    """Recall over all matches of several batches, coarsest level first."""
    out = []
    for levels in zip(*batches, strict=True):
        seen = [level for level in levels if level.matches]
        total = sum(level.matches for level in seen)
        union, per_head = (
            sum(getattr(level, name) * level.matches for level in seen) / max(total, 1)
            for name in ("union", "per_head")
        )
        mean = levels[0]._replace(union=union, per_head=per_head, matches=total)
        out.append(mean if total else levels[0])
    return out


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    options = options_from_words(Options, words[1:])
    model = load_safetensors(resolve(words[0], offline=True))
    require_lists(words[0], model.config)
    pairs = options.rendered(model.config.canvas)
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
