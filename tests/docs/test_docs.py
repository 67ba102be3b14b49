"""The documentation: its code runs, its links lead somewhere, its reference is up to date."""

from __future__ import annotations

import re
import runpy
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("assets/*.md")])
MARKED = re.compile(r"<!-- run -->\n```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


def snippets() -> list[tuple[str, str]]:
    """(page and number, code) of every block that is marked to be run."""
    return [
        (f"{page.name}-{number}", code)
        for page in PAGES
        for number, code in enumerate(MARKED.findall(page.read_text(encoding="utf-8")))
    ]


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in snippets()])
def test_marked_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, letter in (("demo0", "a"), ("demo1", "b")):
        shutil.copy(ROOT / "assets" / f"{name}.jpg", tmp_path / f"{letter}.jpg")
    (tmp_path / "snippet.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path("snippet.py")
    assert "matches" in names or "picture" in names


def test_every_page_of_docs_with_python_is_run() -> None:
    assert {name.rsplit("-", 1)[0] for name, _ in snippets()} >= {"how_it_works.md", "recipes.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files_and_titles(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


def test_the_configuration_reference_is_up_to_date() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "make_configuration.py"))
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == generator["document"](), "run: python docs/make_configuration.py"


def test_what_the_docs_say_was_measured_with_the_bundled_weights() -> None:
    weights = (ROOT / "matcher" / "weights" / "compact.safetensors").read_bytes()
    said = {
        digest
        for page in PAGES
        for digest in re.findall(r"measured with the weights (\w+)", page.read_text("utf-8"))
    }
    assert said == {sha256(weights).hexdigest()[:8]}, "run: python docs/make_figures.py"


def test_figures_of_the_docs_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "images").iterdir()}
    assert sizes
    assert max(sizes.values()) < 150_000, sizes
