"""Unrelated photographs called reliable: python -m eval.unrelated photos=FOLDER [key=value ...]

Options: pairs=1000 drawn of the folder, side=480 of the longer sides, rotate=auto, zoom=auto,
weights=compact, seed=0, output=outputs/unrelated. The pairs are matched as a collection: the same
words go on after an interruption, a larger pairs= adds to it. Prints how many pairs get the verdict
"reliable", and which: look whether those are of one place.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from matcher import __version__
from matcher.batch.collection import match_collection
from matcher.batch.folders import read_folder
from matcher.batch.image_names import encode_name
from matcher.batch.options import CollectionOptions
from matcher.batch.run import Run, open_run
from matcher.batch.shards import NO_MATCH
from matcher.files import only_writer, write_atomically
from matcher.geometry.verdict import NOTHING, Verdict, judge
from matcher.options import Turns
from matcher.terminal.program import program, tell, warn
from matcher.validation.checked import Name, NotNegative, Positive, checked, invalid
from matcher.validation.words import options_from_words

LIST = "drawn.jsonl"


@checked()
class Options:
    """Which pairs, and how they are matched."""

    photos: Name
    pairs: Positive = 1000
    side: Positive = 480
    rotate: Turns = "auto"
    zoom: Literal["auto", "off"] = "auto"
    weights: Name = "compact"
    seed: NotNegative = 0
    output: Name = "outputs/unrelated"

    @property
    def collection(self) -> CollectionOptions:
        """How the list of pairs in the output is matched."""
        return CollectionOptions(
            pairs=str(Path(self.output) / LIST),
            root=self.photos,
            output=str(Path(self.output) / "run"),
            extend=True,
            weights=self.weights,
            max_side=self.side,
            rotate=self.rotate,
            zoom=self.zoom,
            offline=True,
        )


def draw_pairs(photos: int, pairs: int, seed: int) -> list[tuple[int, int]]:
    """Different pairs of different photos by number; fewer pairs are the first of more.

    Raises:
        UsageError: there are not so many (E201).
    """
    most = photos * (photos - 1) // 2
    if pairs > most:
        raise invalid("pairs", pairs, f"at most {most}, the pairs of {photos} photos")
    draw = np.random.default_rng(seed)
    drawn: dict[frozenset[int], tuple[int, int]] = {}
    while len(drawn) < pairs:
        first, second = draw.choice(photos, 2, replace=False).tolist()
        drawn.setdefault(frozenset((first, second)), (first, second))
    return list(drawn.values())


def write_list(options: Options) -> None:
    """Write the list of the pairs that are drawn."""
    names = read_folder(options.photos).names
    pairs = draw_pairs(len(names), options.pairs, options.seed)
    lines = [json.dumps([names[i], names[j]]) + "\n" for i, j in pairs]
    write_atomically(Path(options.output) / LIST, "".join(lines).encode())


def verdicts(run: Run) -> Iterator[tuple[str, str, Verdict]]:
    """The names of each pair of a finished run that was read, and its verdict."""
    found = (result for _, shard in run.read_all() for result in shard.results())
    for names, result in zip(run.pairs.named(), found, strict=True):
        if not isinstance(result, int):
            yield *names, judge(result)
        elif result == NO_MATCH:
            yield *names, NOTHING


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """The program; returns its exit code."""
    options = options_from_words(Options, words)
    with only_writer(Path(options.output), "wait for it, or use another output"):
        write_list(options)
        code = match_collection(options.collection, version=__version__, tell=tell, warn=warn)
    found = list(verdicts(open_run(Path(options.collection.output))))
    for name0, name1, verdict in found:
        if verdict.reliable:
            pair = f"{encode_name(name0)}\t{encode_name(name1)}"
            tell(f"reliable  {pair}\t{verdict.inliers} inliers, NFA 1e{verdict.log_nfa:.1f}")
    lowest = min((verdict.log_nfa for *_, verdict in found), default=math.inf)
    reliable = sum(verdict.reliable for *_, verdict in found)
    tell(f"verdicts  {reliable} of {len(found)} pairs reliable, lowest NFA 1e{lowest:.1f}")
    return code


if __name__ == "__main__":
    sys.exit(main())
