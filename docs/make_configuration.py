"""Write docs/configuration.md from the dataclasses that check the options.

    python -m docs.make_configuration

Meanings are the docstrings below the fields; the first lines of the YAML files in conf/ say what a
file of a group is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, get_type_hints

from conf import compose, compose_run, plain_options
from data.classification import ClassificationDataConfig
from data.config import DataConfig
from data.detection import DetectionDataConfig
from data.stereo import StereoDataConfig
from eval.options import EvalOptions
from matcher.batch.options import CollectionOptions
from matcher.config import MatcherConfig
from matcher.files import write_atomically
from matcher.network.pyramid import PyramidConfig
from matcher.options import MatchOptions
from matcher.tasks.classification.__main__ import ClassificationOptions
from matcher.tasks.classification.training import ClassificationRunConfig
from matcher.tasks.detection.__main__ import DetectionOptions
from matcher.tasks.detection.config import DetectorConfig
from matcher.tasks.detection.training import DetectionRunConfig
from matcher.tasks.localization.options import LocalizationOptions
from matcher.tasks.stereo.__main__ import StereoOptions
from matcher.tasks.stereo.config import StereoConfig
from matcher.tasks.stereo.training import StereoRunConfig
from matcher.terminal.program import program
from matcher.training.config import RunConfig
from matcher.validation.checked import config_from_dict
from matcher.validation.words import default_of, meanings, shown

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "configuration.md"
HEAD = """\
# Configuration

Written by `python -m docs.make_configuration` from the dataclasses that check the values; a test
keeps both alike. An unknown option is refused, and the nearest known one is named.
"""


@program(__doc__)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    plain_options(words, {})
    write_atomically(TARGET, document().encode())
    return 0


def document() -> str:
    """The whole page."""
    values = compose("train")
    loaded = config_from_dict(DataConfig, values.pop("data"))
    run = config_from_dict(RunConfig, values)
    compact = config_from_dict(MatcherConfig, compose("train", ["model=compact"])["model"])
    values = compose_run(["task=stereo"])
    scenes = config_from_dict(StereoDataConfig, values.pop("data"))
    stereo = config_from_dict(StereoRunConfig, values)
    values = compose_run(["task=detection", "data.folder=FOLDER"])
    pictures = config_from_dict(DetectionDataConfig, values.pop("data"))
    detection = config_from_dict(DetectionRunConfig, values)
    values = compose_run(["task=classification", "data.folder=FOLDER"])
    images = config_from_dict(ClassificationDataConfig, values.pop("data"))
    classes = config_from_dict(ClassificationRunConfig, values)
    parts = [
        HEAD,
        "## Matching: `python match.py IMAGE0 IMAGE1 key=value ...`\n",
        table(MatchOptions),
        "## Matching a collection: `python match.py pairs=LIST_OR_FOLDER key=value ...`\n",
        table(CollectionOptions),
        "## Localization: `quadmatch localize QUERY key=value ...`\n",
        table(LocalizationOptions, skip=("query",)),
        "## Training: `python train.py key=value ...`\n",
        "The defaults are those of the published outdoor model; the files of `conf/` choose "
        "others, and the column `train.py` holds what the program takes where that differs.\n",
        table(RunConfig, skip=("model",), other=run, column="`train.py`"),
        "### Training data: `data.`\n",
        table(DataConfig, prefix="data.", other=loaded, column="`train.py`"),
        "### Many options in a word\n",
        "`loss=focal` takes the values in `conf/loss/focal.yaml`, and so on; the options above "
        "change single ones of them. An experiment may choose files of the other groups too.\n",
        groups("train.yaml"),
        "## The model: `model.`\n",
        "The published model, and the bundled one where it differs.\n",
        table(MatcherConfig, prefix="model.", other=compact, column="`compact`"),
        "## Stereo: `python -m matcher.tasks.stereo LEFT RIGHT key=value ...`\n",
        table(StereoOptions, skip=("left", "right")),
        "### Training it: `python train.py task=stereo key=value ...`\n",
        "The other options of `trainer.` are those above.\n",
        table(StereoRunConfig, skip=("model", "trainer"), other=stereo, column="`train.py`"),
        table(StereoDataConfig, prefix="data.", other=scenes, column="`train.py`"),
        table(StereoConfig, prefix="model."),
        "## Detection: `python -m matcher.tasks.detection IMAGE weights=FILE key=value ...`\n",
        table(DetectionOptions, skip=("image",)),
        "### Training it: `python train.py task=detection key=value ...`\n",
        "The defaults are those of the published detector of COCO; the column holds what the "
        "program takes. The other options of `trainer.` are those above.\n",
        table(DetectionRunConfig, skip=("model", "trainer"), other=detection, column="`train.py`"),
        table(DetectionDataConfig, prefix="data.", other=pictures, column="`train.py`"),
        table(DetectorConfig, prefix="model.", other=detection.model, column="`train.py`"),
        "## Classification: `python -m matcher.tasks.classification IMAGE weights=FILE "
        "key=value ...`\n",
        table(ClassificationOptions, skip=("image",)),
        "### Training it: `python train.py task=classification key=value ...`\n",
        "The classes are the folders of `data.folder`, whatever `model.classes` says. The other "
        "options of `trainer.` are those above.\n",
        table(
            ClassificationRunConfig, skip=("model", "trainer"), other=classes, column="`train.py`"
        ),
        table(ClassificationDataConfig, prefix="data.", other=images, column="`train.py`"),
        table(PyramidConfig, prefix="model.", other=classes.model, column="`train.py`"),
        "## Evaluation: `python -m eval benchmark=NAME key=value ...`\n",
        table(EvalOptions, skip=("benchmark",)),
        groups("eval.yaml"),
    ]
    return "\n".join(parts)


def table(
    kind: type,
    *,
    prefix: str = "",
    skip: tuple[str, ...] = (),
    other: object = None,
    column: str = "",
) -> str:
    """Rows of a dataclass and those inside it; one `column` more for another instance."""
    head = ["option", "default", *([column] if column else []), "meaning"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(kind, prefix, skip, other)]
    return "\n".join(lines) + "\n"


def rows(kind: type, prefix: str, skip: tuple[str, ...], other: object) -> Iterator[list[str]]:
    told, kinds = meanings(kind), get_type_hints(kind)
    for field in fields(kind):
        if field.name in skip:
            continue
        there: Any = None if other is None else getattr(other, field.name)
        if is_dataclass(kinds[field.name]):
            yield from rows(kinds[field.name], f"{prefix}{field.name}.", (), there)
            continue
        value = default_of(field)
        changed = f"`{shown(there)}`" if other is not None and there != value else ""
        text = told.get(field.name, "").rstrip(".").replace("``", "`").replace("|", "or")
        cells = [f"`{prefix}{field.name}`", f"`{shown(value)}`", changed, text]
        yield cells if other is not None else [cells[0], cells[1], cells[3]]


def groups(name: str) -> str:
    """Rows of the files that the groups of a YAML file choose from."""
    text = (ROOT / "conf" / name).read_text(encoding="utf-8")
    lines = ["| word | what it is |", "|---|---|"]
    for group, default in re.findall(r"^  - (?:optional )?(\w+): (\w+)", text, re.MULTILINE):
        files = sorted((ROOT / "conf" / group).glob("*.yaml"))
        for file in files if len(files) > 1 or default == "null" else ():
            mark = " (the default)" if file.stem == default else ""
            lines.append(f"| `{group}={file.stem}` | {opening(file)}{mark} |")
    return "\n".join(lines) + "\n"


def opening(file: Path) -> str:
    """The first sentence of the comment that a YAML file begins with."""
    lines = file.read_text(encoding="utf-8").removeprefix("# @package _global_\n").splitlines()
    words = " ".join(line[2:] for line in takewhile(re.compile(r"# \S").match, lines))
    return re.split(r"\.(?: |$)", words)[0].rstrip(":")


if __name__ == "__main__":
    sys.exit(main())
