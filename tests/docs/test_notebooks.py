"""Notebooks run from beginning to end, offline, and are committed without their outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FIRST, TRAINING, MOTION = NOTEBOOKS[0].stem, NOTEBOOKS[3].stem, NOTEBOOKS[4].stem


def execute(name: str, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel; raises where a cell fails."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "2")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
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


def printed(notebook: nbformat.NotebookNode) -> str:
    """All that its cells printed."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o["text"] for o in outputs if o.get("name") == "stdout")


def numbers(text: str, pattern: str) -> list[float]:
    """The groups of a pattern, which must be there once."""
    (found,) = re.findall(pattern, text)
    return [float(number) for number in ([found] if isinstance(found, str) else found)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS[1:3]])
def test_the_other_notebooks_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pictures(execute(name, monkeypatch)) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_about_training_learns_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    executed = execute(TRAINING, monkeypatch)
    assert pictures(executed) == 4
    text = printed(executed)
    before, after = numbers(text, r"45 degrees and more: (\d+) before, (\d+) after")
    assert after > 1.4 * before
    before, after = numbers(text, r"turned by less: (\d+) before, (\d+) after")
    assert after > 0.7 * before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_notebook_about_motion_finds_the_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    executed = execute(MOTION, monkeypatch)
    assert pictures(executed) == 2
    for what in ("rotation", "direction"):
        (error,) = numbers(printed(executed), rf"{what} off by ([\d.]+) degrees")
        assert error < 0.5
    of_query = r"the photograph: off by ([\d.]+) cm and ([\d.]+) degrees"
    distance, angle = numbers(printed(executed), of_query)
    assert distance < 2
    assert angle < 0.3
