"""What `pip install` gives: the wheel in a fresh environment, outside of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = [str(ROOT / "assets" / f"demo{i}.jpg") for i in (0, 1)]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "match.py", "train.py")
PACKAGES = ("matcher", "quadmatch", "conf", "data", "eval", "benchmarks", "tests/helpers")


def call(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A program that sees nothing of the checkout and no network."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MATCHER_OFFLINE": "1", "PIP_NO_INDEX": "1", "PIP_NO_INPUT": "1"}
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: building leaves files in its folder."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        shutil.copy(ROOT / name, folder / name)
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    built = call(*pip, "--wheel-dir", folder / "dist", folder, cwd=folder)
    assert built.returncode == 0, built.stderr
    return next((folder / "dist").glob("quadmatch-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel; dependencies are those of here."""
    folder = tmp_path_factory.mktemp("fresh")
    made = call(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    assert made.returncode == 0, made.stderr
    programs = folder / "env" / "bin"
    # Appended to the path; what is installed here in editable form is not found that way.
    paths = {"base": str(folder / "env"), "platbase": str(folder / "env")}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install", "--quiet")
    done = call(*pip, "--no-deps", "--no-compile", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return programs


def test_the_wheel_holds_the_library_and_every_weight_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"matcher", "quadmatch"}
    weights = {f"matcher/weights/{p.name}" for p in (ROOT / "matcher/weights").glob("*.safetens*")}
    assert weights == {name for name in names if name.endswith(".safetensors")}
    assert {
        "matcher/weights/compact.safetensors",
        "matcher/weights/compact.quality.safetensors",
    } <= (weights)


def test_the_command_matches_two_photographs(installed: Path, tmp_path: Path) -> None:
    options = ("max_side=320", "output=ab.csv", "picture=null")
    done = call(installed / "quadmatch", *DEMO, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verdict   reliable" in done.stdout
    assert (tmp_path / "ab.csv").stat().st_size > 10_000


def test_the_package_is_the_library_under_its_name(installed: Path, tmp_path: Path) -> None:
    program = (
        "import matcher, quadmatch\n"
        "assert set(matcher.__all__) == set(quadmatch.__all__)\n"
        "assert all(getattr(quadmatch, n) is getattr(matcher, n) for n in matcher.__all__)\n"
        "print(quadmatch.__version__, quadmatch.__file__, matcher.__file__)"
    )
    done = call(installed / "python", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    version, *files = done.stdout.split()
    assert all(Path(file).is_relative_to(installed.parent) for file in files)
    for program in ((installed / "quadmatch",), (installed / "python", "-m", "quadmatch")):
        assert call(*program, "--version", cwd=tmp_path).stdout == f"{version}\n"


def test_programs_of_the_checkout_say_so_in_a_line(installed: Path, tmp_path: Path) -> None:
    for name in ("eval", "train"):
        done = call(installed / "quadmatch", name, "method=compact", cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"E203 {name}: belongs to a checkout")
        assert done.stderr.count("\n") == 1
