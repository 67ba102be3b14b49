"""The documentation as a site: every page is in its navigation, and it fetches nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "mkdocs.yml"
OUTSIDE = {"CONTRIBUTING.md"}
FETCHING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}
"""What a browser fetches without being asked; of links, those with other relations than pages."""
NOT_FETCHED = {"canonical", "next", "prev", "alternate", "edit"}


class Tagged(yaml.SafeLoader):
    """Reads a configuration with tags of Python, which it leaves out."""


Tagged.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def config() -> dict[str, Any]:
    return yaml.load(CONFIG.read_text(encoding="utf-8"), Tagged)


def pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [page for value in values for page in pages_of(value)]


class Resources(HTMLParser):
    """Addresses that a browser fetches to show a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in NOT_FETCHED:
            return
        address = given.get(FETCHING.get(tag, ""))
        if address:
            self.found.append(address)


def outside(addresses: list[str]) -> list[str]:
    return [each for each in addresses if re.match(r"(https?:)?//", each)]


def test_the_navigation_lists_every_page_once() -> None:
    docs = ROOT / "docs"
    pages = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    assert sorted(set(pages_of(config()["nav"])) - OUTSIDE) == pages
    assert len(pages_of(config()["nav"])) == len(pages) + len(OUTSIDE)


def test_the_site_is_told_to_fetch_no_fonts() -> None:
    assert config()["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & config().keys()


def test_a_resource_from_outside_is_found() -> None:
    html = '<script src="https://x.org/a.js"></script><a href="https://x.org">x</a>'
    html += '<link rel="canonical" href="https://x.org"><img src="a.png"><img src="//x.org/b">'
    assert outside(Resources(html).found) == ["https://x.org/a.js", "//x.org/b"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    built = {
        page.removesuffix(".md").replace("README", "index") + ".html"
        for page in pages_of(config()["nav"])
    }
    assert built <= pages
    for page in pages:
        html = (tmp_path / page).read_text(encoding="utf-8")
        assert outside(Resources(html).found) == [], page
        assert 'class="mermaid"' not in html, "the theme would fetch a script to draw it"
    for sheet in tmp_path.rglob("*.css"):
        assert outside(re.findall(r"url\(([^)]*)\)", sheet.read_text(encoding="utf-8"))) == []
    api = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert all(
        f'id="matcher.{name}"' in api for name in ("structures.Matches", "predictor.load_matcher")
    )
    assert "locate" in (tmp_path / "search" / "search_index.json").read_text(encoding="utf-8")
