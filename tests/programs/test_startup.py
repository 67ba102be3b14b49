"""What starting costs: nothing is loaded that is not needed yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = {"h5py", "kornia", "hydra", "omegaconf", "poselib", "pytorch_lightning", "matplotlib"}
"""What matching of two arrays never needs."""
HEAVY = OPTIONAL | {"torch", "cv2", "PIL"}


def run(program: str, *words: str) -> str:
    command = [sys.executable, "-c", program, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout.splitlines()[-1]


def loaded_after(program: str) -> set[str]:
    """Top-level modules that a program has loaded at its end."""
    return set(
        run(f"import sys\n{program}\nprint(*{{m.partition('.')[0] for m in sys.modules}})").split()
    )


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_after("import match; match.main(['--help'])") & HEAVY
    assert not loaded_after("import match; match.main(['pairs=list.txt', '--help'])") & HEAVY


def test_the_matcher_loads_neither_hdf5_nor_kornia_nor_hydra() -> None:
    assert not loaded_after("import matcher") & (HEAVY | {"numpy"})
    assert not loaded_after("from matcher import load_matcher, build_matcher") & OPTIONAL


def test_help_takes_a_second_of_the_processor() -> None:
    """Processor time, the best of three: other programs of the machine do not count."""
    program = "import match, time; match.main(['--help']); print(time.process_time())"
    assert any(float(run(program)) <= 1.0 for _ in range(3))


def test_importing_the_matcher_adds_half_a_second_to_torch() -> None:
    program = (
        "import torch, time; start = time.process_time()\n"
        "from matcher import load_matcher\n"
        "print(time.process_time() - start)"
    )
    assert any(float(run(program)) <= 0.5 for _ in range(3))


def test_the_matcher_loads_no_pyramid_and_no_task() -> None:
    program = (
        "import sys\nimport matcher\nfrom matcher import load_matcher, build_matcher\n"
        "print('|'.join(sys.modules))"
    )
    loaded = run(program).split("|")
    assert "matcher.network.transformer" in loaded
    assert not [m for m in loaded if m.startswith(("matcher.network.pyramid", "matcher.tasks"))]
