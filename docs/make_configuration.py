"""Write docs/configuration.md from the dataclasses that validate the options.

    python -m docs.make_configuration

Meanings are the docstrings below the fields, or else the comments of the YAML files in conf/, whose
first lines say what a file of a group is.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from conf import compose
from data.datamodule import DataConfig
from eval.options import EvalOptions
from matcher.batch.options import CollectionOptions
from matcher.config import COMPACT, MatcherConfig, config_from_dict
from matcher.options import MatchOptions
from matcher.training.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "configuration.md"
COMMENTED = ("loss/positives.yaml", "optim/compact.yaml", "trainer/default.yaml")
"""Files whose comments tell what the fields of a training do not."""
HEAD = """\
# Configuration

Written by `python -m docs.make_configuration` from the dataclasses that check the values; a test
keeps both alike. An unknown option is refused, and the nearest known one is named.
"""


def main() -> None:
    TARGET.write_text(document(), encoding="utf-8")


def document() -> str:
    """The whole page."""
    values = compose("train")
    loaded = config_from_dict(DataConfig, values.pop("data"))
    run = config_from_dict(RunConfig, values)
    meanings = comments("train.yaml")
    for name in COMMENTED:
        meanings |= comments(name, f"{Path(name).parent}.")
    meanings = {name: text[:1].upper() + text[1:] for name, text in meanings.items()}
    parts = [
        HEAD,
        "## Matching: `python match.py IMAGE0 IMAGE1 key=value ...`\n",
        table(MatchOptions, comments("match.yaml")),
        "## Matching a collection: `python match.py pairs=LIST_OR_FOLDER key=value ...`\n",
        table(CollectionOptions, comments("pairs.yaml")),
        "## Training: `python train.py key=value ...`\n",
        "The defaults are those of the published outdoor model; the files of `conf/` choose "
        "others, and the column `train.py` holds what the program takes where that differs.\n",
        table(RunConfig, meanings, skip=("model",), other=run, column="`train.py`"),
        "### Training data: `data.`\n",
        table(DataConfig, prefix="data.", other=loaded, column="`train.py`"),
        "### Many options in a word\n",
        "`loss=focal` takes the values in `conf/loss/focal.yaml`, and so on; the options above "
        "change single ones of them. An experiment may choose files of the other groups too.\n",
        groups("train.yaml"),
        "## The model: `model.`\n",
        "The published model, and the bundled one where it differs.\n",
        table(MatcherConfig, prefix="model.", other=COMPACT, column="`compact`"),
        "## Evaluation: `python -m eval benchmark=NAME key=value ...`\n",
        table(EvalOptions, comments("eval.yaml"), skip=("benchmark",)),
        groups("eval.yaml"),
    ]
    return "\n".join(parts)


def table(
    kind: type,
    meanings: dict[str, str] | None = None,
    *,
    prefix: str = "",
    skip: tuple[str, ...] = (),
    other: object = None,
    column: str = "",
) -> str:
    """Rows of a dataclass and those inside it; one `column` more for another instance."""
    head = ["option", "default", "meaning"]
    if other is not None:
        head.insert(2, column)
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(kind, meanings, prefix, skip, other)]
    return "\n".join(lines) + "\n"


def rows(
    kind: type,
    meanings: dict[str, str] | None,
    prefix: str,
    skip: tuple[str, ...],
    other: object,
) -> Iterator[list[str]]:
    known = {f"{prefix}{name}": text for name, text in docstrings(kind).items()}
    known = (meanings or {}) | known
    for field in fields(kind):
        if field.name in skip:
            continue
        there = None if other is None else getattr(other, field.name)
        nested = field.default_factory
        if isinstance(nested, type) and is_dataclass(nested):
            yield from rows(nested, meanings, f"{prefix}{field.name}.", (), there)
            continue
        value = default(field)
        row = [f"`{prefix}{field.name}`", shown(value), known.get(f"{prefix}{field.name}", "")]
        if other is not None:
            row.insert(2, shown(there) if there != value else "")
        yield row


def default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else "required"


def shown(value: Any) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(str(v) for v in value) + "]`"
    words = {None: "null", True: "true", False: "false", "": "empty"}
    return f"`{words.get(value, value) if isinstance(value, (bool, str, type(None))) else value}`"


def docstrings(kind: type) -> dict[str, str]:
    """The strings below the fields of a class."""
    tree = ast.parse(inspect.cleandoc(inspect.getsource(kind))).body[0]
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    out = {}
    for before, after in pairwise(body):
        text = after.value if isinstance(after, ast.Expr) else None
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(text, ast.Constant)
        ):
            words = " ".join(str(text.value).replace("|", "or").split())
            out[before.target.id] = words.replace("``", "`").rstrip(".")
    return out


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


def comments(name: str, prefix: str = "") -> dict[str, str]:
    """What the comments of a YAML file say about its options."""
    out: dict[str, str] = {}
    last = ""
    for line in (ROOT / "conf" / name).read_text(encoding="utf-8").splitlines():
        if found := re.match(r"(\w+):[^#]*#\s*(.+)", line):
            last = f"{prefix}{found[1]}"
            out[last] = found[2]
        elif last and (found := re.match(r"\s+#\s*(.+)", line)):
            out[last] += " " + found[1]
        else:
            last = ""
    return out


if __name__ == "__main__":
    main()
