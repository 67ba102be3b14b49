"""Notebooks run from beginning to end, offline, and are committed without their outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FIRST = "01_match_a_pair"


def execute(name: str, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel; raises where a cell fails."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "2")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    return client.execute()


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def test_all_notebooks_are_there() -> None:
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_valid_and_hold_no_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.cells[0].source.startswith("# ")


@pytest.mark.timeout(600)
def test_the_first_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pictures(execute(FIRST, monkeypatch)) == 5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS if path.stem != FIRST])
def test_the_other_notebooks_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "05_structure_from_motion":
        pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    executed = execute(name, monkeypatch)
    assert pictures(executed) >= 1
