"""Lists of pairs: what lines may look like, what is refused, names, folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import match
from matcher.batch.fingerprints import ImageFiles
from matcher.batch.folders import neighbors, read_folder
from matcher.batch.image_names import Root, decode_name, encode_name
from matcher.batch.manifest import encode_list, read_list
from matcher.batch.pairs import PairList, find_pairs, read_pairs
from matcher.errors import UsageError

NAMES = st.one_of(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=60),
    st.sampled_from([".", "..", "../x", "a/b-c", "a-b/c", "./d", "a//b", "-", "x" * 255, "%41"]),
    st.binary(min_size=1, max_size=30).filter(lambda b: b"\0" not in b).map(os.fsdecode),
)  # fmt: skip


def write(path: Path, data: bytes | str) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg b.jpg", ("a.jpg", "b.jpg")),
        ("  a.jpg    b.jpg  ", ("a.jpg", "b.jpg")),
        ("a b.jpg\tc d.jpg", ("a b.jpg", "c d.jpg")),
        ('it\'s.jpg\t"q".jpg', ("it's.jpg", '"q".jpg')),
        ("'a b.jpg' \"c d.jpg\"", ("a b.jpg", "c d.jpg")),
        (r"a\ b.jpg c.jpg", ("a b.jpg", "c.jpg")),
        ("'#a.jpg' b#.jpg", ("#a.jpg", "b#.jpg")),
        ("ä漢🙂.jpg e\u0301.jpg", ("ä漢🙂.jpg", "e\u0301.jpg")),
        ("a\u00a0b.jpg c\u2028d\x85.jpg", ("a\u00a0b.jpg", "c\u2028d\x85.jpg")),
        ("db/1.jpg query/2.jpg", ("db/1.jpg", "query/2.jpg")),
        ("l'eglise0.jpg b.jpg", ("l'eglise0.jpg", "b.jpg")),
        ("a'1.jpg a'2.jpg", ("a'1.jpg", "a'2.jpg")),
        ("'tis.jpg b.jpg", ("'tis.jpg", "b.jpg")),
        ("#1.jpg b.jpg", ("#1.jpg", "b.jpg")),
        ("#1.jpg\t#2.HEIC", ("#1.jpg", "#2.HEIC")),
        (r"db\1.jpg query\2.jpg", (r"db\1.jpg", r"query\2.jpg")),
        (r'"a b.jpg" query\2.jpg', ("a b.jpg", r"query\2.jpg")),
        ("a.jpg b.jpg # overlap 0.3", ("a.jpg", "b.jpg")),
    ],
)
def test_a_line_of_two_names(tmp_path: Path, line: str, expected: tuple[str, str]) -> None:
    for end in ("", "\n", "\r\n", "\r\n\r\n  \n# comment\n"):
        path = write(tmp_path / "list.txt", f"\ufeff{line}{end}")
        assert list(read_pairs(path)) == [expected]


@pytest.mark.parametrize("comment", ["# two names", "#", "#old.jpg", "# a.jpg b.jpg", "#\ta.jpg"])
def test_comments_are_skipped(tmp_path: Path, comment: str) -> None:
    path = write(tmp_path / "list.txt", f"\ufeff{comment}\na.jpg b.jpg\n{comment}\n")
    assert list(read_pairs(path)) == [("a.jpg", "b.jpg")]


def test_lists_with_a_mark_each_can_be_put_together(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "\ufeffa.jpg b.jpg\n\ufeffc.jpg d.jpg\n")
    assert list(read_pairs(path)) == [("a.jpg", "b.jpg"), ("c.jpg", "d.jpg")]


def test_a_list_of_another_encoding_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "a.jpg b.jpg\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"E112 .*save the list as UTF-8"):
        list(read_pairs(path))


def test_json_lines(tmp_path: Path) -> None:
    first, second = ["a\tb \n.jpg", "c\u00e9.jpg"], {"name1": "d", "name0": "e", "score": 1}
    text = f"{json.dumps(first)}\n\n{json.dumps(second)}\r\n"
    assert list(read_pairs(write(tmp_path / "l.jsonl", text))) == [tuple(first), ("e", "d")]


@pytest.mark.parametrize(
    ("name", "content", "code", "line"),
    [
        ("l.txt", b"a b\nc\n", 113, 2),
        ("l.txt", b"a b\n\nc d e\n", 113, 3),
        ("l.txt", b"a\t\n", 113, 1),
        ("l.txt", b"'a b\n", 113, 1),
        ("l.txt", b"a b\n\xff\xfe c\n", 112, 2),
        ("l.txt", b"a b\nc\0 d\n", 114, 2),
        ("l.jsonl", b'["a", "b"]\n["a", 3]\n', 113, 2),
        ("l.jsonl", b'["a"\n', 113, 1),
        ("l.jsonl", b'["a", "b", "c"]\n', 113, 1),
        ("l.jsonl", b'["a", "\\ud800"]\n', 112, 1),
        ("l.jsonl", b"3\n", 113, 1),
        ("l.jsonl", b"[" * 100_000 + b"\n", 113, 1),
    ],
)
def test_a_faulty_line_is_named(
    tmp_path: Path, name: str, content: bytes, code: int, line: int
) -> None:
    with pytest.raises(UsageError, match=f"E{code} .*line {line}") as error:
        list(read_pairs(write(tmp_path / name, content)))
    assert error.value.code == code


def test_a_missing_or_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="E111"):
        find_pairs(str(tmp_path / "gone.txt"))
    with pytest.raises(UsageError, match="E115"):
        find_pairs(write(tmp_path / "l.txt", "# nothing\n"))


def test_options_of_lists_and_of_folders_are_refused_with_the_other(tmp_path: Path) -> None:
    listed = write(tmp_path / "l.txt", "a.jpg b.jpg\n")
    with pytest.raises(UsageError, match=r"E204 .*l\.txt: is no folder"):
        find_pairs(listed, select="sequential")
    with pytest.raises(UsageError, match=r"E204 root: .* is a folder"):
        find_pairs(str(tmp_path), root=str(tmp_path))


def test_duplicates_point_at_the_first_pair_of_the_same_images() -> None:
    pairs = PairList.of([("a", "b"), ("b", "c"), ("b", "a"), ("a", "b"), ("c", "c"), ("c", "b")])
    assert pairs.names == ["a", "b", "c"]
    assert pairs.first.tolist() == [0, 1, 0, 0, 4, 1]


def test_an_image_that_is_written_in_two_ways_is_one() -> None:
    pairs = PairList.of([("./a/b.jpg", "c.jpg"), ("c.jpg", "a/./b.jpg"), ("a//b.jpg", "../c.jpg")])
    assert pairs.names == ["./a/b.jpg", "c.jpg", "../c.jpg"]
    assert pairs.first.tolist() == [0, 0, 2]
    more = pairs.extended([("a/b.jpg", "/c.jpg"), ("/c.jpg", "//c.jpg")])
    assert more.names == [*pairs.names, "/c.jpg"]
    assert more.index[3:].tolist() == [[0, 3], [3, 3]]


@settings(max_examples=2000, deadline=None)
@given(st.tuples(NAMES, NAMES))
def test_names_survive_encoding_and_stay_different(names: tuple[str, str]) -> None:
    encoded = [encode_name(name) for name in names]
    assert [decode_name(text) for text in encoded] == list(names)
    assert (encoded[0] == encoded[1]) == (names[0] == names[1])
    for text in encoded:
        assert text.encode().decode() == text
        assert not set(text) & {"\n", "\0", "\r"}


def test_names_survive_a_file(tmp_path: Path) -> None:
    names = ["a\nb", "%0A", "é", "e\u0301", "x" * 255, os.fsdecode(b"\xff%\xfe"), "../a", " "]
    pairs = PairList.of((a, b) for a in names for b in names)
    images = ImageFiles(np.arange(len(names) * 32, dtype=np.uint8).reshape(-1, 32))
    (tmp_path / "pairs.npz").write_bytes(encode_list(pairs, images))
    again, files = read_list(tmp_path / "pairs.npz")
    assert again.names == names
    assert (again.index == pairs.index).all()
    assert not files.differs(images).any()
    assert again.sha256 == pairs.sha256


def test_the_order_of_a_list_is_part_of_its_fingerprint() -> None:
    lists = [[("a", "b"), ("c", "d")], [("c", "d"), ("a", "b")], [("a", "b"), ("d", "c")]]
    assert len({PairList.of(pairs).sha256 for pairs in lists}) == 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/2.jpg", "a/10.PNG", "a/sub/ä b.tif", "b/1.jpg", "a/notes.txt", "a/._2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_a_folder_is_matched_exhaustively(folder: Path) -> None:
    pairs, root = find_pairs(str(folder / "a"))
    assert root == str(folder / "a")
    assert pairs.names == ["2.jpg", "10.PNG", "sub/ä b.tif"] == read_folder(root).names
    assert pairs.index.tolist() == [[0, 1], [0, 2], [1, 2]]


def test_a_folder_is_matched_in_sequence(folder: Path) -> None:
    pairs, _ = find_pairs(str(folder / "a"), select="sequential", window=1)
    assert pairs.index.tolist() == [[0, 1]]
    for count, reach in ((7, 3), (7, 99), (1, 2), (2, 1)):
        expected = [[i, j] for i in range(count) for j in range(i + 1, count) if j - i <= reach]
        assert neighbors(count, reach).tolist() == expected


def test_two_folders_are_matched_with_each_other(folder: Path) -> None:
    pairs, root = find_pairs(str(folder / "a"), against=str(folder / "b"))
    assert root == str(folder)
    found = [(pairs.names[i], pairs.names[j]) for i, j in pairs.index]
    assert found == [("a/2.jpg", "b/1.jpg"), ("a/10.PNG", "b/1.jpg"), ("a/sub/ä b.tif", "b/1.jpg")]


ESCAPES = (
    "../out.jpg", "..", "../", "../..", "../in/../out.jpg", "../inside_out/out.jpg",
    "../in2/out.jpg", "./../out.jpg", "././../out.jpg", ".//../out.jpg", "..//out.jpg",
    "../../../../../../../../etc/passwd", "sub/../..", "sub/../../out.jpg",
    "sub/../../in2/out.jpg", "sub/./../../out.jpg", "sub/..//../out.jpg",
    "sub/deep/../../../out.jpg", "sub/deep/../../../../etc/passwd", "gone/../../out.jpg",
    "gone/../../../etc/passwd", "ok.jpg/../../out.jpg", "/etc/passwd", "//etc/passwd",
    "///etc/passwd", "/", "/.", "/../etc/passwd", "/proc/self/environ",
    "/proc/self/root/etc/passwd", "/dev/zero", "/dev/fd/0", "{outside}/out.jpg",
    "{inside}/../out.jpg", "{inside}2/out.jpg", "link.jpg", "chain.jpg", "linked/out.jpg",
    "linked", "linked/../out.jpg", "sub/up/out.jpg", "sub/up/in2/out.jpg", "relative.jpg",
    "dangling.jpg", "linked/gone.jpg", "sub/../link.jpg", "sub/../linked/out.jpg",
)  # fmt: skip
"""Names that lead out of the folder ``in``, by dots, from the root of the disk or by links."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder ``in`` with links out of it, among others; all but it is out of bounds."""
    inside = tmp_path / "in"
    for folder in (inside / "sub" / "deep", tmp_path / "in2", tmp_path / "outside"):
        folder.mkdir(parents=True)
        (folder / "out.jpg").write_bytes(b"x")
    for path in (tmp_path / "out.jpg", inside / "ok.jpg"):
        path.write_bytes(b"x")
    (inside / "link.jpg").symlink_to(tmp_path / "outside" / "out.jpg")
    (inside / "chain.jpg").symlink_to("link.jpg")
    (inside / "relative.jpg").symlink_to("../out.jpg")
    (inside / "dangling.jpg").symlink_to("../gone.jpg")
    (inside / "linked").symlink_to(tmp_path / "outside")
    (inside / "sub" / "up").symlink_to("../..")
    (inside / "inner.jpg").symlink_to("ok.jpg")
    return tmp_path


def test_40_names_that_lead_out_of_the_root_are_refused(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also by the program, which then writes nothing anywhere."""
    assert len(set(ESCAPES)) >= 40
    monkeypatch.chdir(tree)
    before = sorted(str(path) for path in tree.rglob("*"))
    for number, escape in enumerate(ESCAPES):
        name = escape.format(inside=tree / "in", outside=tree / "outside")
        with pytest.raises(UsageError, match="E114"):
            Root("in").status(name)
        Root("in", allow_outside=True).status(name)
        if number % 8 == 0:
            list_ = tree / "in" / "list.jsonl"
            write(list_, json.dumps(["ok.jpg", name]))
            assert match.main([f"pairs={list_}", "skip_missing=true"]) == 2
            assert capsys.readouterr().err.startswith("E114")
            list_.unlink()
    assert sorted(str(path) for path in tree.rglob("*")) == before


def test_names_that_stay_inside_the_root_are_accepted(tree: Path) -> None:
    root = Root(str(tree / "in"))
    for name in ("ok.jpg", "sub/../ok.jpg", "./ok.jpg", "inner.jpg", "sub/deep/../../ok.jpg",
                 "../in/ok.jpg", "..jpg", "sub/...", f"{tree}/in/ok.jpg"):  # fmt: skip
        assert (root.status(name) is None) == (name in ("..jpg", "sub/...")), name
    assert root.status("gone.jpg") is None
    assert root.status("x" * 5000) is None


MILLION = """
import sys, time
from resource import RUSAGE_SELF, getrusage
from matcher.batch.pairs import PairList, read_pairs
before = getrusage(RUSAGE_SELF).ru_maxrss
started = time.process_time()
pairs = PairList.of(read_pairs(sys.argv[1]))
seconds = time.process_time() - started
print(len(pairs), seconds, getrusage(RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_million_lines(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    with path.open("w") as file:
        file.writelines(f"folder/a{i % 5000:06d}.jpg folder/b{i:06d}.jpg\n" for i in range(10**6))
    root = str(Path(__file__).resolve().parents[2])
    words = [sys.executable, "-c", MILLION, str(path)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    count, seconds, kilobytes = done.stdout.split()
    assert int(count) == 10**6
    assert float(seconds) <= 5
    assert int(kilobytes) <= 500_000
