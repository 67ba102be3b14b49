"""What no source may do: unpickle, run what a file names, read images unchecked."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = [ROOT / "match.py", ROOT / "train.py"]
FOLDERS = ("matcher", "data", "eval", "benchmarks", "docs")
SOURCES = [*PROGRAMS, *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py")))]
CALLS = {
    "eval",
    "exec",
    "cv2.imread",
    "hydra.utils.instantiate",
    "instantiate",
    "os.system",
    "pickle.load",
    "pickle.loads",
    "torch.hub.load",
    "yaml.load",
}
OPTIONS = {("weights_only", False), ("allow_pickle", True), ("shell", True)}


def faults(source: str) -> Iterator[str]:
    """The forbidden calls and addresses of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith("http://") and not node.value.startswith("http://127.0.0.1"):
                yield node.value
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {
                (k.arg, k.value.value) for k in node.keywords if isinstance(k.value, ast.Constant)
            }
            if name in CALLS or given & OPTIONS:
                yield ast.unparse(node)
            if name == "torch.load" and ("weights_only", True) not in given:
                yield ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(ROOT)) for p in SOURCES])
def test_no_source_does_what_is_forbidden(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "try:\n    load(x, weights_only=True)\nexcept Exception:\n    load(x, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "value = eval(text)",
        "image = cv2.imread(path)",
        "url = 'http://example.org/weights'",
    ],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert list(faults(source))


def test_all_sources_are_looked_at() -> None:
    assert len(SOURCES) > 80
