"""`quadmatch data`: tells what to fetch, checks what lies there, lays it out for eval."""

from __future__ import annotations

import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from eval.benchmarks import load_benchmark
from eval.benchmarks.options import BenchmarkOptions
from matcher.files import only_writer
from matcher.program import command, published_data
from matcher.program.published_data import DATASETS

NAMES = ["v_one", "i_two", "i_dc"]
MINIATURE = {"[iv]_*/[1-6].ppm": 3 * 6, "[iv]_*/H_1_[2-6]": 3 * 5}


def archive_of(entries: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return data.getvalue()


def hpatches() -> dict[str, bytes]:
    """Entries of an archive as HPatches', with three sequences of black pictures."""
    H = "\n".join(" ".join(map(str, row)) for row in np.eye(3)).encode()
    inside = "hpatches-sequences-release"
    pictures = {f"{inside}/{n}/{k}.ppm": b"P6 1 1 255 \0\0\0" for n in NAMES for k in range(1, 7)}
    return pictures | {f"{inside}/{n}/H_1_{k}": H for n in NAMES for k in range(2, 7)}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server of this machine serves as the place of HPatches' archive."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    data = DATASETS["hpatches"]
    url = f"http://127.0.0.1:{server.server_port}/{data.archive}"
    monkeypatch.setitem(DATASETS, "hpatches", replace(data, url=url, files=MINIATURE))
    yield folder / data.archive
    server.shutdown()
    server.server_close()


def asked(*words: str) -> int:
    return command.main(["data", *words])


def test_two_programs_do_not_fetch_into_one_folder(
    tmp_path: Path, served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.write_bytes(archive_of(hpatches()))
    words = ("hpatches", f"root={tmp_path / 'data'}", "fetch=true")
    with only_writer(tmp_path / "data", "wait"):
        assert asked(*words) == 2
    assert "E207" in capsys.readouterr().err
    assert asked(*words) == 0
    assert "found     18" in capsys.readouterr().out


def test_what_to_fetch_is_told_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, data in DATASETS.items():
        assert asked(name) == 0
        told = capsys.readouterr().out
        assert data.url in told
        assert data.size in told
        assert f"datasets/{data.folder}" in told
    assert list(tmp_path.iterdir()) == []


def test_a_fetched_archive_is_laid_out_as_eval_reads_it(served: Path, tmp_path: Path) -> None:
    served.write_bytes(archive_of(hpatches()))
    root = tmp_path / "data"
    assert asked("hpatches", f"root={root}", "fetch=true") == 0
    options = BenchmarkOptions(name="hpatches", kind="hpatches", root=str(root))
    pairs = load_benchmark(options, cache=tmp_path).pairs
    assert [pair.name for pair in pairs][:6] == [f"i_two 1 {k}" for k in range(2, 7)] + [
        "v_one 1 2"
    ]
    assert len(pairs) == 10, "one of the sequences is among those with large images"


def test_an_archive_that_lies_there_is_enough(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / served.name).write_bytes(archive_of(hpatches()))
    assert asked("hpatches", f"root={root}") == 0
    assert "found     18 of" in capsys.readouterr().out
    digest = (root / f"{served.name}.sha256").read_text()
    assert digest == published_data.sha256_of(root / served.name)


def test_another_archive_than_the_first_one_is_refused(
    served: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / served.name).write_bytes(archive_of(hpatches()))
    (root / f"{served.name}.sha256").write_text("0" * 64)
    assert asked("hpatches", f"root={root}") == 5
    assert capsys.readouterr().err.startswith("E503")
    assert not (root / "v_one").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive at all", "E402"),
        (archive_of({"../outside.txt": b"x"}), "leads out of it"),
        (archive_of(dict(list(hpatches().items())[:-1])), "14 of 15"),
    ],
)
def test_archives_that_are_not_whole_are_refused(
    content: bytes,
    said: str,
    served: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / served.name).write_bytes(content)
    assert asked("hpatches", f"root={root}") == 4
    assert said in capsys.readouterr().err
    assert not (tmp_path / "outside.txt").exists()


def test_unknown_data_is_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked("kitti") == 2
    assert "megadepth1500, scannet1500, hpatches" in capsys.readouterr().err
