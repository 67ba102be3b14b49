"""Runs that go on: after repairs, with more pairs, after failures, kills and stops."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from matcher.batch import worker
from matcher.batch.feature_cache import ImageFeatures
from matcher.batch.run import open_run
from matcher.batch.shards import DRAFT, PENDING, Shard, find_shards
from matcher.batch.worker import Draft, ShardMatcher, Task, run_local
from matcher.errors import StorageError
from tests.helpers.collections_of_pairs import Outcome, Stub, stub_run

Program = Callable[..., Outcome]
WORDS = ("pairs=img", "output=run", "export=pack")


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pairs that the network matched, a batch each."""
    counts: list[int] = []
    whole = ShardMatcher._match

    def match(self: ShardMatcher, batch: Any) -> Any:
        counts.append(len(batch))
        return whole(self, batch)

    monkeypatch.setattr(ShardMatcher, "_match", match)
    return counts


def packed(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "packed.h5") as file:
        return {name: file[name][()] for name in file}  # pyright: ignore


def named(folder: Path) -> dict[tuple[str, str], int]:
    """Matches of each pair by its names."""
    found = packed(folder)
    names = found["names"].tobytes().decode().split("\n")
    counts = np.diff(found["start"].astype(int)).tolist()
    return {(names[a], names[b]): n for (a, b), n in zip(found["pairs"], counts, strict=True)}


def test_a_repaired_image_costs_its_own_pairs_alone(
    program: Program, tmp_path: Path, extracted: list[int]
) -> None:
    image = tmp_path / "img" / "im 3.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:100])
    assert program(*WORDS)[0] == 3
    assert sum(extracted) == 6
    image.write_bytes(whole)
    code, out, _ = program(*WORDS)
    assert (code, sum(extracted)) == (0, 10)
    assert "changed   1 images: 'im 3.png'" in out
    assert not (tmp_path / "run" / "failures.tsv").exists()
    repaired = named(tmp_path / "run")
    assert program("pairs=img", "output=whole", "export=pack")[0] == 0
    assert named(tmp_path / "whole") == repaired


def test_a_late_image_is_matched_when_it_comes(
    program: Program, tmp_path: Path, extracted: list[int]
) -> None:
    names = [f"im {i}.png" for i in range(3)]
    (tmp_path / "list.jsonl").write_text(
        "\n".join(json.dumps([a, b]) for a in names for b in names if a < b)
    )
    (tmp_path / "img" / names[2]).rename(tmp_path / "late.png")
    words = ("pairs=list.jsonl", "root=img", "output=run", "skip_missing=true")
    assert program(*words)[0] == 3
    (tmp_path / "late.png").rename(tmp_path / "img" / names[2])
    assert program(*words)[0] == 0
    assert sum(extracted) == 3


def test_images_that_are_gone_after_the_run_leave_its_results(
    program: Program, tmp_path: Path, extracted: list[int]
) -> None:
    (tmp_path / "list.txt").write_text("'im 0.png' 'im 1.png'")
    words = ("pairs=list.txt", "root=img", "output=run", "export=pack", "skip_missing=true")
    assert program(*words)[0] == 0
    (tmp_path / "img" / "im 1.png").unlink()
    assert program(*words)[0] == 0
    assert sum(extracted) == 1


def test_contents_that_change_under_the_same_size_and_time_are_seen(
    program: Program, tmp_path: Path, extracted: list[int]
) -> None:
    image, other = tmp_path / "img" / "a.bmp", tmp_path / "img" / "im 0.png"
    from PIL import Image

    Image.open(other).save(image)
    assert program(*WORDS)[0] == 0
    status, before = image.stat(), image.read_bytes()
    Image.open(other).rotate(180).save(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = image.stat()
    assert (again.st_size, again.st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert image.read_bytes() != before
    done = sum(extracted)
    code, out, _ = program(*WORDS)
    assert (code, sum(extracted) - done) == (0, 5)
    assert "changed   1 images: 'a.bmp'" in out


def test_an_image_that_is_replaced_meanwhile_is_told_and_its_pairs_fail(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "img" / "im 4.png"
    other = (tmp_path / "img" / "im 0.png").read_bytes()
    read = ImageFeatures._read

    def replace_first(self: ImageFeatures, number: int) -> object:
        image.write_bytes(other)
        return read(self, number)

    monkeypatch.setattr(ImageFeatures, "_read", replace_first)
    code, out, err = program(*WORDS)
    assert code == 3
    assert "4 failed:E107" in out
    assert "replaced  im 4.png" in err
    monkeypatch.setattr(ImageFeatures, "_read", read)
    assert program(*WORDS)[0] == 0


def test_an_image_that_is_replaced_after_it_was_read_is_told(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "img" / "im 0.png"
    other = (tmp_path / "img" / "im 1.png").read_bytes()
    close = ImageFeatures.close

    def replace_last(self: ImageFeatures) -> None:
        image.write_bytes(other)
        close(self)

    monkeypatch.setattr(ImageFeatures, "close", replace_last)
    code, out, err = program(*WORDS)
    assert (code, "10 ok" in out) == (3, True)
    assert "replaced  im 0.png" in err


def test_a_run_is_extended_by_images_and_pairs(
    program: Program, tmp_path: Path, extracted: list[int]
) -> None:
    shutil.move(tmp_path / "img" / "im 1.png", tmp_path / "later.png")
    assert program(*WORDS)[0] == 0
    before = named(tmp_path / "run")
    shutil.move(tmp_path / "later.png", tmp_path / "img" / "im 1.png")
    code, _, err = program(*WORDS)
    assert code == 2
    assert "E206 run: holds a run of other pairs: 4 are new, 0 are gone; extend=true adds" in err
    assert named(tmp_path / "run") == before
    code, out, _ = program(*WORDS, "extend=true")
    assert (code, sum(extracted)) == (0, 10)
    assert "extended  by 4 pairs" in out
    after = named(tmp_path / "run")
    assert {pair: after[pair] for pair in before} == before
    assert len(after) == 10
    assert [p.name for p in (tmp_path / "run").glob("pairs-*")] == [
        open_run(tmp_path / "run").manifest.list_name
    ]
    for words in (WORDS, (*WORDS, "extend=true")):
        assert program(*words)[0] == 0
    assert sum(extracted) == 10
    (tmp_path / "more.txt").write_text("'im 3.png' 'im 0.png'\n'im 3.png' 'im 3.png'")
    words = ("pairs=more.txt", "root=img", "output=run", "extend=true", "export=pack")
    assert program(*words)[0] == 0
    assert len(packed(tmp_path / "run")["status"]) == 12
    assert sum(extracted) == 11


def test_pairs_that_failed_are_tried_again_on_demand(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extracted: list[int]
) -> None:
    read = ImageFeatures._read

    def starved(self: ImageFeatures, number: int) -> object:
        if number == 2:
            raise MemoryError
        return read(self, number)

    monkeypatch.setattr(ImageFeatures, "_read", starved)
    assert program(*WORDS, "shard_size=3")[0] == 3
    monkeypatch.setattr(ImageFeatures, "_read", read)
    assert program(*WORDS, "shard_size=3")[0] == 3
    assert sum(extracted) == 6
    assert program(*WORDS, "shard_size=3", "retry=true")[0] == 0
    assert sum(extracted) == 10
    assert not find_shards(tmp_path / "run" / "shards", DRAFT)


class Interrupted(Stub):
    """Matches a pair at a time, and is interrupted after so many."""

    def __init__(self, pairs: int) -> None:
        self.left = pairs

    def match(self, task: Task, upcoming: Task | None = None, draft: Draft | None = None) -> Shard:
        assert draft is not None
        results = super().match(task).results()
        for i, pending in enumerate(draft.pending):
            if pending:
                if self.left == 0:
                    raise KeyboardInterrupt
                self.left -= 1
                draft.add({i: results[i]})
        return Shard.of(draft.results)


def test_a_small_collection_that_is_stopped_keeps_what_it_had(tmp_path: Path) -> None:
    run = stub_run(tmp_path, count=12, shard_size=32)
    done: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run_local(run, Interrupted(5).match, done.append)
    assert done == []
    (number, (_, shard)), *more = run.drafts().items()
    assert (number, more) == (0, [])
    assert int((shard.status != PENDING).sum()) == 5
    run_local(run, Interrupted(7).match, done.append)
    assert done == [7]
    assert find_shards(tmp_path / "shards", DRAFT) == []
    stub = Stub().match((run.pairs.index, run.duplicates(0)))
    _, whole = next(run.read_all())
    for name in ("status", "count", "keypoints0", "keypoints1", "scores"):
        assert (getattr(whole, name) == getattr(stub, name)).all()


def test_what_is_matched_is_on_the_disk_every_few_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "KEEP_SECONDS", 0.0)
    run = stub_run(tmp_path, count=12, shard_size=32)
    seen: list[int] = []
    keep = type(run).keep

    def counted(self: Any, number: int, shard: Shard) -> Path:
        seen.append(int((shard.status != PENDING).sum()))
        return keep(self, number, shard)

    monkeypatch.setattr(type(run), "keep", counted)
    run_local(run, Interrupted(99).match, lambda pairs: None)
    assert seen == list(range(1, 13))
    assert [path.suffix for path in (tmp_path / "shards").iterdir()] == [".h5"]


def test_a_stopped_program_goes_on_within_a_shard(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extracted: list[int]
) -> None:
    counted = ShardMatcher._match

    def stopping(self: ShardMatcher, batch: Any) -> Any:
        if sum(extracted) >= 4:
            raise KeyboardInterrupt
        return counted(self, batch)

    monkeypatch.setattr(ShardMatcher, "_match", stopping)
    assert program(*WORDS, "batch_size=2")[0] == 130
    code, out, err = program("verify=run")
    assert (code, out) == (2, "shards    0 of 1 done, 0 damaged\n")
    assert "E208" in err
    monkeypatch.setattr(ShardMatcher, "_match", counted)
    assert program(*WORDS, "batch_size=2")[0] == 0
    assert sum(extracted) == 10
    log = (tmp_path / "run" / "run.log").read_text()
    assert "started with 5 of 10 pairs" in log
    assert program("pairs=img", "output=whole", "export=pack", "batch_size=2")[0] == 0
    assert (tmp_path / "whole" / "packed.h5").read_bytes() == (
        tmp_path / "run" / "packed.h5"
    ).read_bytes()


def test_leftovers_of_killed_processes_are_removed(program: Program, tmp_path: Path) -> None:
    assert program("pairs=img", "output=run")[0] == 0
    places = ("", "shards/", "colmap/")
    (tmp_path / "run" / "colmap").mkdir()
    parts = [tmp_path / "run" / f"{place}.quadmatch-9-ab.part" for place in places]
    parts += [tmp_path / "run" / "colmap" / f"database.db.part{end}" for end in ("", "-wal")]
    for command in (WORDS[:2], ("pack=run",)):
        for part in parts:
            part.write_bytes(b"x")
        assert program(*command)[0] == 0
        assert not [part for part in parts if part.exists()]


def test_leftovers_elsewhere_are_left_alone(program: Program, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    part = tmp_path / "run" / ".quadmatch-9-ab.part"
    part.write_bytes(b"of another program")
    assert program("pairs=img", "output=run", "threshold=2")[0] == 2
    assert part.exists()


def test_exports_of_earlier_results_are_told(program: Program, tmp_path: Path) -> None:
    assert program(*WORDS)[0] == 0
    os.utime(tmp_path / "run" / "packed.h5", (1, 1))
    assert "outdated  run/packed.h5" in program("pairs=img", "output=run")[1]
    assert "outdated" not in program(*WORDS)[1]


def test_a_run_without_its_folder_of_shards_goes_on(
    program: Program, tmp_path: Path, extracted: list[int]
) -> None:
    assert program("pairs=img", "output=run")[0] == 0
    shutil.rmtree(tmp_path / "run" / "shards")
    assert program("verify=run")[0] == 2
    assert program("pack=run")[0] == 2
    assert program("pairs=img", "output=run")[0] == 0
    assert sum(extracted) == 20


@pytest.mark.parametrize("name", ["manifest.json", "pairs", "shard"])
def test_pipes_in_a_run_do_not_hang(program: Program, tmp_path: Path, name: str) -> None:
    assert program("pairs=img", "output=run")[0] == 0
    path = {
        "manifest.json": tmp_path / "run" / "manifest.json",
        "pairs": next((tmp_path / "run").glob("pairs-*")),
        "shard": find_shards(tmp_path / "run" / "shards")[0].path,
    }[name]
    path.unlink()
    os.mkfifo(path)
    assert program("verify=run")[0] == (2 if name == "manifest.json" else 4)


@pytest.mark.parametrize("values", [{"shard_size": 0}, {"shard_size": "x"}, {"settings": 3}])
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, values: dict[str, object]) -> None:
    run = stub_run(tmp_path, count=4)
    manifest = json.loads(run.manifest.encode())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | values))
    with pytest.raises(StorageError, match="E402"):
        open_run(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "pairs-*.npz"])
@pytest.mark.parametrize("damage", [b"", b"half a fi", None])
def test_a_damaged_run_tells_the_way_back_and_keeps_what_is_done(
    program: Program, tmp_path: Path, extracted: list[int], name: str, damage: bytes | None
) -> None:
    assert program(*WORDS)[0] == 0
    done, (file,) = sum(extracted), (tmp_path / "run").glob(name)
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    code, _, err = program(*WORDS)
    if (name, damage) != ("manifest.json", None):
        assert (code, "remove manifest.json and run the same words again" in err) == (4, True)
        (tmp_path / "run" / "manifest.json").unlink()
        code, _, err = program(*WORDS)
    assert (code, sum(extracted)) == (0, done), err
