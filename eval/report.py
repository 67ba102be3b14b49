"""Everything an evaluation leaves behind in its output folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from eval.options import EvalOptions
from eval.runner import Evaluation
from matcher.storage import write_atomically


def write_reports(
    folder: Path, evaluations: Sequence[Evaluation], options: EvalOptions, words: Sequence[str]
) -> list[str]:
    results = json.dumps([e.record for e in evaluations], indent=1, allow_nan=False)
    write_atomically(folder / "results.json", results.encode())
    return [results]
