"""The words of the project: the field's own, each name that was private once is gone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("matcher", "quadmatch", "data", "eval", "conf", "benchmarks", "docs")
FILES = [ROOT / "match.py", ROOT / "train.py"]
FILES += [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
OLD = {
    "canary", "canary_pair", "readings", "heap", "keep_little", "keep_everything",
    "attempt", "Attempt", "guard", "NonFiniteGuard", "repro", "Keeper", "Lines",
    "quarantine", "Quarantined", "Failure", "sink", "Sink",
    "BlockSupervision", "block_weight", "block_loss", "fold", "folding",
    "likelihood", "objective", "Objective", "cluster", "extras", "registry",
    "scene_truth", "NetworkInput", "keep_rest_only", "rest_only",
    "heat", "heat_weight", "heat_loss", "takes",
    "develop", "draw_tone", "add_sheet", "sheets", "rect_look", "sheet_look",
    "quad_order", "quadtree_ops", "quadtree_cpu", "quadtree_gpu", "quadtree_triton",
}  # fmt: skip
"""Names of modules, classes, functions, arguments and options before the field's words."""


def names(tree: ast.AST) -> Iterator[str]:
    """Names that a source gives: of classes, functions, arguments, fields and variables."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def keys(values: object) -> Iterator[str]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield str(key)
            yield from keys(value)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_old_word_names_a_thing(path: Path) -> None:
    given = {*names(ast.parse(path.read_text(encoding="utf-8"))), path.stem}
    assert given & OLD == set()


def test_no_old_word_names_an_option() -> None:
    given = set()
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        given |= {*keys(yaml.safe_load(path.read_text(encoding="utf-8"))), path.stem}
    assert given
    assert given & OLD == set()


def test_an_old_word_is_found() -> None:
    assert set(names(ast.parse("def f(takes):\n    self.guard = 1"))) & OLD == {"takes", "guard"}
