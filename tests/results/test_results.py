from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from data.real.index import read_arrays
from matcher.batch.manifest import encode_list, read_list
from matcher.errors import StorageError, UsageError
from matcher.files import check_targets, write_atomically
from matcher.results.record import ImageRecord, MatchRecord, read_matches, write_matches
from matcher.structures import Matches
from tests.helpers.broken_files import LZMA, bracketless, flipped, repacked
from tests.helpers.collections_of_pairs import stub_images, stub_pairs

SUFFIXES = [".h5", ".hdf5", ".npz", ".csv", ".json", ".H5"]
WAYS = [lambda path: write_atomically(path, b"x"), lambda path: check_targets([path], ())]
"""To come upon a place that is no place for a file."""


def record(n: int = 5, **changes: object) -> MatchRecord:
    generator = torch.Generator().manual_seed(n)
    values = {
        "matches": Matches(
            torch.rand(n, 2, generator=generator) * 4000,
            torch.rand(n, 2, generator=generator) * 4000,
            torch.rand(n, generator=generator),
            converged=torch.rand(n, generator=generator) < 0.7,
            correlation=torch.rand(n, generator=generator) * 2 - 1,
            quality=torch.rand(n, generator=generator),
        ),
        "image0": ImageRecord("photos/a (1)=ü, x.jpg", 640, 480),
        "image1": ImageRecord('b\n"2".png', 257, 339),
        "provenance": {"weights": "compact", "exif": "ignored", "seed": 3, "threshold": 0.25},
    }
    return MatchRecord(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def with_model(n: int = 5) -> MatchRecord:
    model = np.array([[1.1, 0.02, -30.5], [0.1, 0.9, 1 / 3], [1e-5, 2e-17, 1.0]])
    pose = np.eye(4) + 0.1
    return record(n, geometry="homography", model=model, inliers=np.arange(n) % 2 == 0, T_0to1=pose)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("n", [0, 1, 5, 40_000])
def test_what_is_written_is_read_back_exactly(tmp_path: Path, suffix: str, n: int) -> None:
    if n > 10_000 and suffix not in (".h5", ".npz"):
        n = 1_000
    before = with_model(n)
    write_matches(tmp_path / f"m{suffix}", before)
    after = read_matches(tmp_path / f"m{suffix}")
    assert torch.equal(after.matches.keypoints0, before.matches.keypoints0)
    assert torch.equal(after.matches.keypoints1, before.matches.keypoints1)
    assert torch.equal(after.matches.scores, before.matches.scores)
    assert after.matches.keypoints0.dtype == torch.float32
    for name in ("converged", "correlation", "quality"):
        read, written = getattr(after.matches, name), getattr(before.matches, name)
        assert torch.equal(read, written)
        assert read.dtype == written.dtype
    assert (after.image0, after.image1) == (before.image0, before.image1)
    assert dict(after.provenance) == dict(before.provenance)
    assert after.geometry == "homography"
    assert after.model is not None
    assert after.inliers is not None
    assert np.array_equal(after.model, before.model)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(after.T_0to1, before.T_0to1)  # pyright: ignore[reportArgumentType]
    assert after.inliers.dtype == bool
    assert np.array_equal(after.inliers, before.inliers)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_match_keeps_its_reason_and_has_no_model(tmp_path: Path, suffix: str) -> None:
    write_matches(tmp_path / f"m{suffix}", record(matches=Matches.empty("too_small")))
    after = read_matches(tmp_path / f"m{suffix}")
    assert len(after.matches) == 0
    assert after.matches.reason == "too_small"
    assert after.model is None
    assert after.inliers is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_verdict_and_turn_are_kept(tmp_path: Path, suffix: str) -> None:
    for word, unknown, turned in (("reliable", True, 3), ("too few to tell", False, 0), ("", 0, 0)):
        matches = replace(record().matches, turned=turned)
        before = record(matches=matches, verdict=word, translation_unknown=bool(unknown))
        write_matches(tmp_path / f"m{suffix}", before)
        after = read_matches(tmp_path / f"m{suffix}")
        assert (after.verdict, after.translation_unknown) == (word, bool(unknown))
        assert after.matches.turned == turned
        assert dict(after.provenance) == dict(before.provenance)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_matches_save_and_load_themselves(tmp_path: Path, suffix: str) -> None:
    matches = record().matches
    matches.save(tmp_path / f"m{suffix}")
    after = Matches.load(tmp_path / f"m{suffix}")
    assert torch.equal(after.keypoints0, matches.keypoints0)
    assert torch.equal(after.keypoints1, matches.keypoints1)
    assert torch.equal(after.scores, matches.scores)
    assert read_matches(tmp_path / f"m{suffix}").image0 == ImageRecord("", 0, 0)
    with pytest.raises(UsageError, match="E111"):
        Matches.load(tmp_path / f"gone{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_matches_that_were_not_refined_stay_without_convergence(
    tmp_path: Path, suffix: str
) -> None:
    """As earlier versions wrote them."""
    points = torch.rand(4, 2)
    write_matches(tmp_path / f"m{suffix}", record(matches=Matches(points, points, points[:, 0])))
    after = read_matches(tmp_path / f"m{suffix}").matches
    assert torch.equal(after.keypoints0, points)
    assert after.converged is None
    assert after.correlation is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_record_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        write_matches(tmp_path / f"{name}{suffix}", with_model())
    first, second = (tmp_path / f"{name}{suffix}" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    for suffix in SUFFIXES:
        write_matches(tmp_path / f"m{suffix}", record(image0=ImageRecord(name, 1, 1)))
        assert read_matches(tmp_path / f"m{suffix}").image0.name == "caf\\udce9.jpg"


def test_hdf5_opens_with_plain_h5py_and_json_with_plain_json(tmp_path: Path) -> None:
    write_matches(tmp_path / "m.h5", with_model())
    with h5py.File(tmp_path / "m.h5") as file:
        assert file["keypoints0"].shape == (5, 2)
        assert file["inliers"][()].tolist() == [1, 0, 1, 0, 1]
        assert file.attrs["image1_width"] == 257
        assert file.attrs["exif"] == "ignored"
        assert file.attrs["schema"] == "quadmatch/1"
    write_matches(tmp_path / "m.json", with_model())
    assert json.loads((tmp_path / "m.json").read_text())["image0_width"] == 640


def test_a_file_that_its_user_annotated_reads_back(tmp_path: Path) -> None:
    before = with_model()
    write_matches(tmp_path / "m.h5", before)
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["comment"] = "taken at noon"
        file.attrs["rating"] = 4
        file.attrs["weather"] = np.array([1.5, 2.5])
        file["depths"] = np.linspace(1, 2, 5)
        file.create_group("mine")["notes"] = "a text"
        file["scores"].attrs["unit"] = "probability"
    after = read_matches(tmp_path / "m.h5")
    assert torch.equal(after.matches.keypoints0, before.matches.keypoints0)
    assert np.array_equal(after.model, before.model)  # pyright: ignore[reportArgumentType]
    assert after.provenance["comment"] == "taken at noon"
    assert after.provenance["rating"] == 4
    assert "weather" not in after.provenance  # Only text and numbers are kept.
    write_matches(tmp_path / "again.h5", after)
    assert read_matches(tmp_path / "again.h5").provenance == after.provenance


def test_a_file_behind_a_user_block_is_read(tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    write_matches(tmp_path / "new.h5", with_model())
    with (
        h5py.File(tmp_path / "new.h5") as new,
        h5py.File(tmp_path / "old.h5", "w", userblock_size=512) as old,
    ):
        for name in new:
            new.copy(name, old)
        old.attrs.update(new.attrs)
    after, before = (read_matches(tmp_path / f"{name}.h5") for name in ("old", "new"))
    assert torch.equal(after.matches.scores, before.matches.scores)
    assert after.provenance == before.provenance


def test_csv_is_a_table_below_comments(tmp_path: Path) -> None:
    matches = Matches(torch.tensor([[1.5, 2.0]]), torch.tensor([[3.0, 4.25]]), torch.tensor([0.5]))
    write_matches(tmp_path / "m.csv", record(matches=matches))
    lines = (tmp_path / "m.csv").read_text().splitlines()
    table = [line for line in lines if not line.startswith("#")]
    assert table == ["x0,y0,x1,y1,score", "1.5,2.0,3.0,4.25,0.5"]


def test_a_table_that_an_editor_saved_is_read(tmp_path: Path) -> None:
    write_matches(tmp_path / "m.csv", record())
    text = (tmp_path / "m.csv").read_text()
    saved = "\ufeff" + text.replace("\n", "\r\n") + "\r\n  \r\n"
    (tmp_path / "saved.csv").write_bytes(saved.encode())
    found, plain = (read_matches(tmp_path / name) for name in ("saved.csv", "m.csv"))
    assert found.image0 == plain.image0
    assert torch.equal(found.matches.keypoints0, plain.matches.keypoints0)


def test_a_table_without_a_column_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x0,y0,y1\n1,2,3\n")
    with pytest.raises(StorageError, match=r"E402 .*: 'x1' is missing"):
        read_matches(tmp_path / "a.csv")


def test_another_suffix_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E201 output: got .*m\.txt.*\.h5"):
        write_matches(tmp_path / "m.txt", record())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E111 .*gone\.h5"):
        read_matches(tmp_path / "gone.h5")


def test_replacing_keeps_the_old_file_when_the_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.h5"
    write_atomically(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"E401 .*No space left on device; needs 0\.0 MB"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.h5"]


def test_a_link_stays_one_and_what_it_names_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.json").symlink_to(tmp_path / "disk" / "b.json")
    for data in (b"new", b"newer"):
        write_atomically(tmp_path / "a.json", data)
        assert (tmp_path / "disk" / "b.json").read_bytes() == data
    assert (tmp_path / "a.json").is_symlink()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["b.json"]


@pytest.mark.parametrize("write", WAYS)
def test_pipes_and_devices_are_not_replaced(tmp_path: Path, write: Callable[[Path], None]) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("/dev/null")
    for place in (pipe, link):
        with pytest.raises(StorageError, match=r"E401 .*no ordinary file"):
            write(place)
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]


@pytest.mark.parametrize("write", WAYS)
def test_a_folder_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StorageError, match="E401"):
        write(Path("a.json"))


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_targets([tmp_path / "new" / "a.json"], ())
    assert [*(tmp_path / "new").iterdir()] == []

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", read_only)
    with pytest.raises(StorageError, match=r"E401 .*Read-only file system; choose another place"):
        check_targets([tmp_path / "a.json"], ())


def test_a_file_size_limit_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from matcher.files import write_atomically; from matcher.errors import StorageError\n"
        "import sys\n"
        "try: write_atomically(sys.argv[1], bytes(1 << 20))\n"
        "except StorageError as error: print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m.h5")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert "E401" in out.stdout, out.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["missing/m.h5", ".", "file/m.h5", "m" * 300 + ".h5"])
def test_a_folder_that_is_not_there_or_in_the_way_is_a_storage_error(
    tmp_path: Path, target: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="E401"):
        write_atomically(tmp_path / target, b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_refused(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"m{suffix}"
    write_matches(target, with_model(50))
    whole = target.read_bytes()
    for cut in (0, 1, 10, len(whole) // 2):
        target.write_bytes(whole[:cut])
        with pytest.raises(StorageError, match="E402"):
            read_matches(target)


def test_a_flipped_bit_in_the_payload_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "m.h5"
    write_matches(target, with_model(5_000))
    data = bytearray(target.read_bytes())
    payload = with_model(5_000).matches.scores.numpy().tobytes()
    where = bytes(data).find(payload[:64])
    assert where > 0
    data[where + 20] ^= 0x10
    target.write_bytes(bytes(data))
    with pytest.raises(StorageError, match="E402"):
        read_matches(target)


def unreadable(reads: Callable[[Path], object], path: Path, files: Iterable[bytes]) -> int:
    """How many of the files are refused as damaged; any other error is passed on."""
    refused = 0
    for data in files:
        path.write_bytes(data)
        try:
            reads(path)
        except StorageError as error:
            refused += error.code == 402
    return refused


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".json"])
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"m{suffix}"
    write_matches(target, with_model(20))
    refused = unreadable(read_matches, target, flipped(target.read_bytes(), 1000))
    assert 500 < refused <= 1000


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_flipped_bytes_of_arrays_are_read_or_refused(tmp_path: Path, pack: Any) -> None:
    target = tmp_path / "arrays.npz"
    pack(target, a=np.eye(3), b=np.arange(9000) % 7)
    whole = target.read_bytes()
    assert unreadable(read_arrays, target, flipped(whole, 1000)) > 500
    odd = [repacked(whole, LZMA), *([bracketless(whole)] if pack is np.savez else [])]
    assert unreadable(read_arrays, target, odd) == len(odd)
    target.write_bytes(whole)
    assert read_arrays(target)["a"].tolist() == np.eye(3).tolist()


def test_flipped_bytes_of_a_list_of_pairs_are_read_or_refused(tmp_path: Path) -> None:
    pairs = stub_pairs(3000)
    images = stub_images(pairs)
    whole = encode_list(pairs, images)
    target = tmp_path / "pairs.npz"
    assert unreadable(read_list, target, flipped(whole, 300)) > 150
    odd = [repacked(whole, LZMA), bracketless(whole)]
    assert unreadable(read_list, target, odd) == 2
    target.write_bytes(whole)
    assert read_list(target)[0].names == pairs.names


MUTATED = """
import random, sys
from pathlib import Path
import numpy as np
from matcher.errors import StorageError
from matcher.results.record import read_matches
path, random_, counts = Path(sys.argv[1]), random.Random(7), [0, 0, 0]
whole, before = path.read_bytes(), read_matches(path)
def same(a, b):
    arrays = zip((*a.matches.numpy(), a.model, a.inliers, a.T_0to1),
                 (*b.matches.numpy(), b.model, b.inliers, b.T_0to1))
    return all(np.array_equal(x, y) for x, y in arrays) and all(
        (x.width, x.height) == (y.width, y.height)
        for x, y in ((a.image0, b.image0), (a.image1, b.image1)))
for trial in range(int(sys.argv[2])):
    data = bytearray(whole)
    for _ in range(random_.choice((1, 1, 2, 8, 40))):
        start = random_.randrange(len(data) if trial % 2 else 2048)
        kind = random_.randrange(5)
        if kind < 2:
            data[start % len(data)] ^= 1 << random_.randrange(8)
        elif kind == 2:
            data[start : start + 8] = random_.randbytes(8)
        elif kind == 3:
            del data[start : start + random_.choice((1, 8, 512))]
        else:
            data[start:start] = data[start : start + 16]
        data = data or bytearray(1)
    path.write_bytes(data)
    try:
        counts[0 if same(read_matches(path), before) else 1] += 1
    except StorageError as error:
        counts[2] += error.code == 402
print(*counts)
"""


@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_hdf5_is_refused_or_keeps_its_numbers(tmp_path: Path, count: int) -> None:
    """It never crashes. HDF5 keeps text without a checksum."""
    write_matches(tmp_path / "m.h5", with_model(50))
    done = subprocess.run(
        [sys.executable, "-c", MUTATED, str(tmp_path / "m.h5"), str(count)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    unchanged, changed, refused = map(int, done.stdout.split())
    assert (unchanged + refused, changed) == (count, 0)
    assert refused > 0.9 * count


def test_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"schema": "quadmatch/99"}')
    with pytest.raises(StorageError, match="E402"):
        read_matches(tmp_path / "m.json")
    write_matches(tmp_path / "m.h5", record())
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file.attrs["schema"] = "other"
    with pytest.raises(StorageError, match="schema 'other'"):
        read_matches(tmp_path / "m.h5")


def hostile_hdf5(kind: str, secret: Path) -> bytes:
    write = io.BytesIO()
    with h5py.File(write, "w") as file:
        file.attrs.update(
            schema="quadmatch/1", geometry="none", image0_name="a", image1_name="b",
            image0_width=1, image0_height=1, image1_width=1, image1_height=1,
        )  # fmt: skip
        for name in ("keypoints1", "scores"):
            file[name] = np.zeros((2, 2) if name == "keypoints1" else 2, np.float32)
        if kind == "external_link":
            file["keypoints0"] = h5py.ExternalLink(str(secret), "data")
        elif kind == "soft_link":
            file["keypoints0"] = h5py.SoftLink("/keypoints0")
        elif kind == "external_storage":
            file.create_dataset("keypoints0", (2, 2), "f4", external=[(str(secret), 0, 16)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2, 2), "f4")
            layout[:] = h5py.VirtualSource(str(secret), "data", (2, 2))
            file.create_virtual_dataset("keypoints0", layout)
        elif kind == "huge":
            file.create_dataset("keypoints0", (10**10, 2), "f4", chunks=(1024, 2))
        elif kind == "group":
            file.create_group("keypoints0")
        elif kind == "objects":
            file["keypoints0"] = np.array([["a", "b"]] * 2, dtype=h5py.string_dtype())
        elif kind == "references":
            file["keypoints0"] = np.array([file.ref, file.ref], dtype=h5py.ref_dtype)
    return write.getvalue()


@pytest.mark.parametrize(
    "kind",
    ["external_link", "soft_link", "external_storage", "virtual", "huge", "group", "objects",
     "references"],
)  # fmt: skip
def test_hostile_hdf5_reads_nothing_outside_itself(tmp_path: Path, kind: str) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = np.full((2, 2), 42, np.float32)
    (tmp_path / "m.h5").write_bytes(hostile_hdf5(kind, tmp_path / "secret.h5"))
    with pytest.raises(StorageError, match="E402"):
        read_matches(tmp_path / "m.h5")


def test_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", keypoints0=np.array([{}], dtype=object), metadata="{}")
    with pytest.raises(StorageError, match="E402"):
        read_matches(tmp_path / "m.npz")


def test_a_threshold_that_is_no_number_is_refused_instead_of_leaving_nothing() -> None:
    matches = record().matches
    assert len(matches.above(0.0)) == len(matches)
    for threshold in (float("nan"), np.float32("nan"), torch.tensor(torch.nan)):
        with pytest.raises(UsageError, match=r"E201 threshold: got .*nan"):
            matches.above(threshold)  # pyright: ignore[reportArgumentType]
