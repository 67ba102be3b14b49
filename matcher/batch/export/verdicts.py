"""What the matches of each pair tell, as a table: ``verdicts.csv``."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

from matcher.batch.image_names import encode_name
from matcher.batch.run import Run
from matcher.batch.shards import status_text
from matcher.files import write_atomically
from matcher.geometry.verdict import NOTHING, judge

FILE = "verdicts.csv"
HEADER = ("image0", "image1", "status", "matches", "inliers", "verdict", "translation_unknown")


class Written(NamedTuple):
    """The table, and what it says on the whole."""

    path: Path
    reliable: int
    pairs: int
    """With matches."""


def export_verdicts(run: Run, converged_only: bool = False) -> Written:
    """Judge every pair of a finished run by a fundamental matrix, in the order of the list.

    Raises:
        UsageError: the run is not finished (E208).
        StorageError: a shard is damaged (E402) or the file cannot be written (E401).
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEADER)
    reliable = judged = 0
    for number, shard in run.read_all():
        pairs = run.pairs.index[run.range(number)]
        for images, status, result in zip(pairs, shard.status, shard.results(), strict=True):
            names = [encode_name(run.pairs.names[image]) for image in images]
            if isinstance(result, int):
                table.writerow((*names, status_text(status), 0, 0, NOTHING, False))
                continue
            matches = result.converged_only() if converged_only else result
            verdict = judge(matches)
            row = len(matches), verdict.inliers, verdict.word, verdict.translation_unknown
            table.writerow((*names, status_text(status), *row))
            reliable, judged = reliable + verdict.reliable, judged + 1
    write_atomically(run.folder / FILE, text.getvalue().encode())
    return Written(run.folder / FILE, reliable, judged)
