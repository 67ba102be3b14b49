"""Files that a reader walks through who follows a program, and how often he moves between them.

    python -m benchmarks.walk [program=match] [top=0]

``program=match`` follows ``match.py`` on the demo pair from its words to the picture,
``program=train`` one step of ``experiment=smoke`` from its scenes to the averaged weights. Prints
the files in the order in which their functions are first entered, how many there are, and how often
a call enters another file than the call before it; with `top` the most frequent of these moves.
"""

from __future__ import annotations

import inspect
import logging
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType

from conf import compose, plain_options
from matcher.terminal.program import program
from matcher.validation.checked import entry_of

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("match.py", "train.py", "conf", "data", "eval", "matcher")
DEFAULTS = {"program": "match", "top": "0"}


class CallRecorder:
    """Files of the product's functions, one for every call, while it is started.

    Bodies of modules and classes are no functions; calls in other threads and processes are not
    seen.
    """

    def __init__(self) -> None:
        self.files: list[str] = []

    def start(self) -> None:
        sys.setprofile(self._note)

    def stop(self) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            return
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in PRODUCT:
            self.files.append(path.relative_to(ROOT).as_posix())


def calls_of_match(folder: Path) -> list[str]:
    """Files of all calls from the words of ``match.py`` to its picture."""
    import match

    demo = [str(ROOT / "assets" / f"demo{i}.jpg") for i in (0, 1)]
    recorder = CallRecorder()
    recorder.start()
    code = match.main([*demo, "offline=true", f"output={folder / 'matches.h5'}"])
    recorder.stop()
    if code:
        raise SystemExit(code)
    return recorder.files


def calls_of_training_step(folder: Path) -> list[str]:
    """Files of all calls from the first sample to the averaged weights of one step."""
    from pytorch_lightning import Callback

    from data.datamodule import build_datamodule
    from matcher.training.config import RunConfig
    from matcher.training.module import MatcherModule
    from matcher.training.trainer import build_trainer
    from matcher.validation.checked import config_from_dict

    words = ["trainer.accelerator=cpu", "trainer.progress=false", "data.workers=0"]
    values = compose("train", ["experiment=smoke", *words])
    data = values.pop("data")
    run = config_from_dict(RunConfig, values | {"folder": str(folder)})
    source = build_datamodule(data, run.seed, run.model.canvas)
    recorder = CallRecorder()

    class StepRecorder(Callback):
        def on_train_start(self, *arguments: object) -> None:
            recorder.start()

        def on_train_end(self, *arguments: object) -> None:
            recorder.stop()

    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = build_trainer(run, 1, [StepRecorder()])
    trainer.fit(MatcherModule(run, source.batch_size), datamodule=source)
    return recorder.files


PROGRAMS: dict[str, Callable[[Path], list[str]]] = {
    "match": calls_of_match,
    "train": calls_of_training_step,
}


def moves_between(calls: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of the files of calls that follow each other, where these differ."""
    return [(before, after) for before, after in pairwise(calls) if before != after]


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    options = plain_options(words, DEFAULTS)
    calls_of = entry_of("program", options["program"], PROGRAMS)
    with tempfile.TemporaryDirectory() as folder:
        calls = calls_of(Path(folder))
    files, moves = list(dict.fromkeys(calls)), moves_between(calls)
    print(*files, sep="\n")
    print(f"{len(files)} files, {len(moves)} moves between them, {len(calls)} calls")
    for (before, after), count in Counter(moves).most_common(int(options["top"])):
        print(f"{count:5} {before} -> {after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
