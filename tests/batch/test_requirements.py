"""What can be known at the start is told at the start: before anything is matched."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from matcher.batch import collection
from tests.helpers.collections_of_pairs import Outcome

Program = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def matched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows when a collection begins to be matched, which is nothing here."""
    calls: list[str] = []

    def never(*words: object) -> None:
        calls.append("matched")
        raise KeyboardInterrupt

    monkeypatch.setattr(collection, "match_missing", never)
    return calls


def refused(outcome: Outcome, matched: list[str], *parts: str) -> None:
    code, _, err = outcome
    assert code in (2, 4)
    assert not matched
    last = err.splitlines()[-1]
    assert all(part in last for part in parts), last
    assert "internal error" not in err


@pytest.mark.parametrize("name", ["a\tb.png", "new\nline.png", os.fsdecode(b"\xff.png")])
def test_names_that_colmap_cannot_hold(
    program: Program, tmp_path: Path, matched: list[str], name: str
) -> None:
    pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    Image.new("L", (96, 64)).save(tmp_path / "img" / name)
    refused(program("pairs=img", "output=run", "export=colmap"), matched, "E209")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pair", [("a/b-c.png", "a-b/c.png"), ("a_b.png", "a_b.png/keypoints")])
def test_names_that_hloc_cannot_tell_apart(
    program: Program, tmp_path: Path, matched: list[str], pair: tuple[str, str]
) -> None:
    (tmp_path / "list.txt").write_text(f"{pair[0]}\tx.png\n{pair[1]}\tx.png\n")
    words = ("pairs=list.txt", "output=run", "export=hloc", "skip_missing=true")
    refused(program(*words), matched, "E209")


def test_images_of_another_shape_under_one_camera(
    program: Program, tmp_path: Path, matched: list[str]
) -> None:
    pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    Image.new("L", (90, 64)).save(tmp_path / "img" / "other.png")
    words = ("pairs=img", "output=run", "export=colmap", "K=[80,80,47.5,31.5]")
    refused(program(*words), matched, "E201 K:", "other.png has 90 x 64 pixels")


@pytest.mark.parametrize(
    ("word", "module", "extra"),
    [("export=colmap", "pycolmap", "sfm"), ("engine=ray", "ray", "ray")],
)
def test_a_package_that_is_not_installed(
    program: Program, matched: list[str], monkeypatch: pytest.MonkeyPatch, word: str, module: str,
    extra: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    refused(program("pairs=img", "output=run", word), matched, "E210", f"quadmatch[{extra}]")


@pytest.mark.parametrize("output", ["img", "img/run", ".", "link", "img/../img/deep/run"])
def test_an_output_inside_or_above_the_images(
    program: Program, tmp_path: Path, matched: list[str], output: str
) -> None:
    (tmp_path / "link").symlink_to("img")
    before = sorted(tmp_path.rglob("*"))
    refused(program("pairs=img", f"output={output}"), matched, "E205", "choose a folder beside it")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_among_the_images_of_the_other_folder_or_above_those_of_a_list(
    program: Program, tmp_path: Path, matched: list[str]
) -> None:
    Image.new("L", (96, 64)).save(tmp_path / "one.png")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes((tmp_path / "one.png").read_bytes())
    refused(program("pairs=other", "against=img", "output=img/run"), matched, "E205")
    (tmp_path / "list.txt").write_text("'im 0.png' 'im 1.png'")
    for root in ("root=img", "root=./img/"):
        refused(program("pairs=list.txt", root, "output=."), matched, "E205")


def test_an_output_below_the_root_of_a_list_is_none_of_its_images(
    program: Program, tmp_path: Path, matched: list[str]
) -> None:
    (tmp_path / "list.txt").write_text("'img/im 0.png' 'img/im 1.png'")
    assert program("pairs=list.txt", "output=run")[0] == 130
    assert matched


@pytest.mark.parametrize(
    ("export", "place"),
    [
        ("pack", "packed.h5"),
        ("hloc", "matches.h5"),
        ("colmap", "colmap/database.db"),
        ("none", "failures.tsv"),
        ("none", "run.log"),
    ],
)
@pytest.mark.parametrize("what", ["folder", "pipe"])
def test_what_is_in_the_way_of_results(
    program: Program, tmp_path: Path, matched: list[str], export: str, place: str, what: str
) -> None:
    path = tmp_path / "run" / place
    path.parent.mkdir(parents=True)
    if what == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    words = ("pairs=img", "output=run", f"export={export}")
    refused(program(*words), matched, "E401", "is in the way")


def test_a_file_where_the_export_needs_a_folder(
    program: Program, tmp_path: Path, matched: list[str]
) -> None:
    pytest.importorskip("pycolmap", reason="extra sfm is not installed")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "colmap").write_text("in the way")
    refused(program("pairs=img", "output=run", "export=colmap"), matched, "E401")


@pytest.mark.parametrize("place", ["pairs", "root"])
def test_lists_that_are_no_ordinary_files(
    program: Program, tmp_path: Path, matched: list[str], place: str
) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    if place == "pairs":
        refused(program("pairs=pipe.txt", "output=run"), matched, "E112 pipe.txt")
    else:
        (tmp_path / "list.txt").write_text("a.png b.png")
        refused(program("pairs=list.txt", "root=pipe.txt", "output=run"), matched, "E111")
