"""What the source must not hold: code that runs, unpickles or decodes what it should not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("matcher", "quadmatch", "data", "eval", "benchmarks", "assets", "docs")
FILES = [ROOT / "match.py", ROOT / "train.py"]
FILES += [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNPICKLERS = ("matcher/weights/unpickle.py", "data/real/index.py")
"""Readers of pickles that resolve nothing but what rebuilds tensors and arrays."""
CALLS = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "__import__",
    "os.system", "os.popen", "yaml.load",
    "yaml.unsafe_load", "yaml.full_load", "torch.hub.load", "torch.hub.load_state_dict_from_url",
    "hydra.utils.instantiate", "hydra.utils.call", "instantiate", "cv2.imread", "cv2.imreadmulti",
    "cv2.imdecode", "cv2.imwrite", "cv2.imencode", "cv2.imwritemulti",
    "torch.jit.load", "torch.package.PackageImporter", "torch.export.load",
}  # fmt: skip
KEYWORDS = {"shell": True, "allow_pickle": True, "weights_only": False, "trust_remote_code": True}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a chain of names; empty for others."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(node: ast.AST) -> Iterator[str]:
    """What a call must not be, or be given."""
    if not isinstance(node, ast.Call):
        return
    name = dotted(node.func)
    if name in CALLS:
        yield name
    for keyword in node.keywords:
        value = keyword.value
        if keyword.arg in KEYWORDS and not (
            isinstance(value, ast.Constant) and value.value is not KEYWORDS[keyword.arg]
        ):
            yield f"{name}({keyword.arg}=...)"
    given = {keyword.arg for keyword in node.keywords}
    if name == "torch.load" and "weights_only" not in given:
        yield "torch.load without weights_only"


def texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and "http://" in node.value:
        yield node.value


def findings(source: str) -> list[str]:
    """What a source must not hold."""
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [name for name in imports(node) if name.split(".")[0] in MODULES]
        found += [name for name in imports(node) if name in CALLS]
        found += [*calls(node), *texts(node)]
    return found


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_nothing_runs_unpickles_or_decodes_what_it_should_not(path: Path) -> None:
    found = findings(path.read_text(encoding="utf-8"))
    if path.relative_to(ROOT).as_posix() in UNPICKLERS:
        found = [name for name in found if name != "pickle"]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "pickle.loads(x)", "from pickle import loads",
        "import joblib", "eval('1')", "exec(x)",
        "os.system('x')", "subprocess.run('x', shell=True)", "subprocess.run('x', shell=y)",
        "np.load(f, allow_pickle=True)", "torch.load(f)", "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=safe)", "torch.hub.load('a', 'b')", "yaml.load(f)",
        "from hydra.utils import instantiate", "hydra.utils.instantiate(c)", "cv2.imread(f)",
        "cv2.imencode(s, x)", "cv2.imwrite(f, x)", "cv2.imdecode(d, 0)",
        "url = 'http://example.org'", "f(trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_check_finds_what_it_looks_for(source: str) -> None:
    assert findings(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(f, weights_only=True)", "model.eval()", "re.compile(x)", "cv2.resize(x, s)",
        "np.load(f, allow_pickle=False)", "url = 'https://example.org'", "read.eval(1)",
    ],
)  # fmt: skip
def test_the_check_leaves_the_rest_alone(source: str) -> None:
    assert findings(source) == []
