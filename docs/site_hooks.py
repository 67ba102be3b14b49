"""What the site needs beside docs/: pages link to files of the checkout, which it takes along."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = ("CONTRIBUTING.md", "assets/*.jpg", "notebooks/*.ipynb")
"""Files outside of docs/ to which its pages link."""
LINK = re.compile(r"\]\(\.\./(assets|notebooks|CONTRIBUTING\.md)")


def on_files(files: Any, config: Any) -> Any:
    """Add the files of the checkout to those of the site."""
    from mkdocs.structure.files import File

    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links out of docs/ as links of the site; a folder of notebooks is its first one."""
    markdown = LINK.sub(r"](\1", markdown)
    return markdown.replace("](notebooks)", "](notebooks/01_match_a_pair.ipynb)")
