"""From photographs to cameras: our matches, COLMAP's mapping, survey-grade ground truth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STRECHA = ROOT.parent / "shared" / "eval" / "strecha"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fountain_is_reconstructed_from_our_matches(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    if not STRECHA.is_dir():
        pytest.skip("the photographs of fountain-P11 are not on this machine")
    script = str(ROOT / "benchmarks" / "reconstruction.py")
    done = subprocess.run(
        [sys.executable, script, str(STRECHA), "fountain-P11", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "registered          11 of 11" in done.stdout
    reprojection = re.search(r"reprojection error +([\d.]+) px", done.stdout)
    centre = re.search(r"centre error +([\d.]+) cm mean", done.stdout)
    assert reprojection is not None
    assert centre is not None
    assert float(reprojection[1]) < 1.5
    assert float(centre[1]) < 10
