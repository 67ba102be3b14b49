"""match.py on collections, with a small random model: results, statuses, caching, exit codes."""

from __future__ import annotations

import gc
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import match
from matcher.batch import collection
from matcher.batch.disk import EXPORT_SIZE, needed_bytes, size_text
from matcher.batch.export.packed import verify
from matcher.batch.feature_cache import ImageFeatures
from matcher.batch.fingerprints import ImageFiles
from matcher.batch.folders import neighbors
from matcher.batch.image_names import Root
from matcher.batch.manifest import Manifest
from matcher.batch.options import CollectionOptions
from matcher.batch.pairs import PairList
from matcher.batch.progress import Progress
from matcher.batch.run import Run, locked, open_run, start_run
from matcher.batch.shards import Shard, find_shards, read_shard, shard_name, status_text
from matcher.batch.worker import ShardMatcher, run_local, task_of
from matcher.errors import StorageError, UsageError
from matcher.files import hdf5_published
from matcher.predictor import load_matcher
from matcher.program.match import catch_signals
from matcher.validation.checked import annotations_of
from tests.helpers.collections_of_pairs import Outcome, Stub, stub_run, write_images
from tests.helpers.forks import finish, fork


def packed(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "packed.h5") as file:
        return {name: file[name][()] for name in file}  # pyright: ignore


def test_a_folder_is_matched_like_its_pairs_one_by_one(
    program: Callable[..., Outcome], tmp_path: Path, weights: str
) -> None:
    code, out, err = program("pairs=img", "output=run", "export=pack", "shard_size=3")
    assert (code, out.splitlines()[0]) == (0, "pairs     10 of 5 images, 0 duplicates")
    assert "10 of 10 pairs" in err
    found = packed(tmp_path / "run")
    names = found["names"].tobytes().decode().split("\n")
    predictor = load_matcher(weights, device="cpu", zoom="off")
    assert len(find_shards(tmp_path / "run" / "shards")) == 4
    for i, (a, b) in enumerate(found["pairs"]):
        matches = predictor.match(f"img/{names[a]}", f"img/{names[b]}")
        expected = matches.numpy()
        part = slice(*found["start"][i : i + 2].astype(int))
        assert len(expected[0]) > 5
        np.testing.assert_allclose(found["keypoints0"][part], expected[0], atol=1e-3)
        np.testing.assert_allclose(found["keypoints1"][part], expected[1], atol=1e-3)
        np.testing.assert_allclose(found["scores"][part], expected[2], atol=1e-5)
        assert (found["converged"][part] == matches.converged.numpy()).all()  # pyright: ignore
        np.testing.assert_allclose(
            found["correlation"][part],
            matches.correlation,  # pyright: ignore
            atol=1e-4,
        )


def test_without_refinement_nothing_is_kept_for_it(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert program("pairs=img", "output=run", "export=pack", "refine=none")[0] == 0
    assert not {"converged", "correlation"} & packed(tmp_path / "run").keys()
    code, _, err = program("pairs=img", "output=run", "refine=photometric")
    assert code == 2
    assert "refine was 'none' and is 'photometric'" in err


def test_images_that_exif_or_rotate_turns_keep_their_stored_pixels(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Exports read the same shards."""
    (tmp_path / "pair").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    with Image.open(tmp_path / "img" / "im 0.png") as image:
        image.save(tmp_path / "pair" / "a.png")
        turned = image.transpose(Image.Transpose.ROTATE_90)
        turned.save(tmp_path / "pair" / "b.png", exif=exif)
        width = image.width
    for words in (("output=by_exif",), ("output=by_rotate", "apply_exif=false", "rotate=[3]")):
        assert program("pairs=pair", "export=pack", *words)[0] == 0
        found = packed(tmp_path / words[0].removeprefix("output="))
        (x0, y0), (x1, y1) = (found[f"keypoints{i}"].T for i in (0, 1))
        distance = np.hypot(x0 - (width - 1 - y1), y0 - x1)
        assert len(distance) > 5
        assert np.median(distance) < 0.5


def test_every_pair_has_a_status(program: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "img" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    Image.new("L", (20, 90)).save(tmp_path / "img" / "small.png")
    lines = ["'im 0.png' 'im 1.png'", "'im 1.png' 'im 0.png'", "bad.png 'im 0.png'",
             "small.png 'im 0.png'", "'im 2.png' 'im 2.png'", "'im 0.png' gone.png"]  # fmt: skip
    (tmp_path / "list.txt").write_text("\n".join(lines))
    code, out, err = program("pairs=list.txt", "root=img", "output=run")
    assert (code, err.splitlines()[:2]) == (
        2,
        ["warning   1 pairs of an image with itself", "missing   gone.png"],
    )
    assert "E111" in err
    assert not (tmp_path / "run").exists()
    words = ("pairs=list.txt", "root=img", "output=run", "export=pack", "skip_missing=true")
    code, out, err = program(*words)
    assert code == 3, err
    assert "1 no_match, 1 duplicate, 1 failed:E102, 1 failed:E111" in out
    assert packed(tmp_path / "run")["status"].tolist() == [0, 2, 102, 1, 0, 111]
    assert packed(tmp_path / "run")["first"].tolist() == [0, 0, 2, 3, 4, 5]
    failures = (tmp_path / "run" / "failures.tsv").read_text()
    assert failures == "bad.png\tim 0.png\tfailed:E102\nim 0.png\tgone.png\tfailed:E111\n"
    assert program(*words)[0] == 3


def test_warnings_about_images_are_in_the_log_of_the_run(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    whole = tmp_path / "img" / "whole.jpg"
    Image.open(tmp_path / "img" / "im 0.png").save(whole, quality=95)
    (tmp_path / "img" / "cut.jpg").write_bytes(whole.read_bytes()[:-600])
    words = ("pairs=img", "output=run", "allow_truncated=true", "cache_mb=1", "shard_size=2")
    code, _, err = program(*words)
    log = (tmp_path / "run" / "run.log").read_text()
    assert code == 0, err
    assert log.count("warning") == 1
    assert f"warning {Path('img') / 'cut.jpg'}: cut off; the missing part is gray" in log
    assert "cut off" not in err


def test_the_room_on_the_disk_is_estimated_before_matching(
    program: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = program("pairs=img", "output=run", "shard_size=2")
    needed = re.search(r"needs about ([\d.]+) kB, .* free\n", out)
    assert needed is not None
    taken = sum(p.stat().st_size for p in (tmp_path / "run" / "shards").iterdir()) / 1000
    assert taken / 3 < float(needed[1]) < 3 * taken
    assert "may become full" not in err
    first = find_shards(tmp_path / "run" / "shards")[0].path
    size = first.stat().st_size / 1000
    first.unlink()
    monkeypatch.setattr(collection, "free_bytes", lambda folder: 1_500_000_000)
    _, out, err = program("pairs=img", "output=run", "shard_size=2")
    needed = re.search(r"needs about ([\d.]+) kB, 1.5 GB free\n", out)
    assert needed is not None
    assert float(needed[1]) == pytest.approx(size, rel=0.3)
    first = find_shards(tmp_path / "run" / "shards")[0].path
    first.unlink()
    monkeypatch.setattr(collection, "free_bytes", lambda folder: 10)
    code, _, err = program("pairs=img", "output=run", "shard_size=2")
    assert (code, "may become full" in err) == (0, True)


def test_the_room_grows_with_pairs_images_and_exports(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(9)]
    sizes = {}
    for side in (200, 400, 1600):
        for name in names:
            Image.new("L", (side, side)).save(tmp_path / name)
        run = run_of_missing(tmp_path / str(side), names)
        for export in EXPORT_SIZE:
            options = CollectionOptions(pairs="x", export=export, max_side=800)
            sizes[side, export] = needed_bytes(run, Root(str(tmp_path)), options)
    cells = 0.4 * 25**2 * 29 * 8 + 6000
    assert sizes[200, "none"] == pytest.approx(cells)
    assert (sizes[400, "none"] - 6000) / (sizes[200, "none"] - 6000) == pytest.approx(4)
    assert sizes[1600, "none"] - 6000 == pytest.approx(16 * (sizes[200, "none"] - 6000))
    order = [sizes[200, export] for export in ("none", "pack", "colmap", "hloc")]
    assert order == sorted(order)
    few = CollectionOptions(pairs="x", top_k=10)
    assert needed_bytes(run, Root(str(tmp_path)), few) < sizes[200, "none"]
    assert [size_text(n) for n in (10, 4.5e6, 2.25e12)] == ["0.0 kB", "4.5 MB", "2.2 TB"]


def run_of_missing(folder: Path, names: list[str]) -> Run:
    """A run of pairs of neighbors of which nothing is done."""
    pairs = PairList(names, neighbors(len(names), 1))
    images = ImageFiles.of(names, Root(str(folder.parent)))
    manifest = Manifest.of(pairs, images, 32, {})
    return start_run(folder, manifest, pairs, images)


def test_a_run_goes_on_only_with_the_same_settings(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert program("pairs=img", "output=run")[0] == 0
    for word, expected in (
        ("threshold=0.5", "threshold was None and is 0.5"),
        ("max_side=80", "max_side was 1024 and is 80"),
        ("nodata=0", "nodata was None and is 0.0"),
        ("bands=[3,2,1]", "bands was 'null' and is '[3,2,1]'"),
        ("max_pixels=9", "max_pixels was 100000000 and is 9"),
        ("apply_exif=false", "apply_exif was True and is False"),
        ("rotate=auto", "rotate was 'off' and is 'auto'"),
        ("stretch=false", "stretch was None and is False"),
        ("shard_size=4", "shard_size was 32 and is 4"),
        ("select=sequential window=1", "0 are new, 6 are gone"),
    ):
        code, _, err = program("pairs=img", "output=run", *word.split())
        assert code == 2
        assert expected in err
        assert "E206 run" in err
    os.utime(tmp_path / "img" / "im 3.png", (1, 1))
    code, out, _ = program("pairs=img", "output=run")
    assert (code, "changed" in out) == (0, False)


def test_commands_on_a_run(program: Callable[..., Outcome], tmp_path: Path) -> None:
    assert program("verify=gone")[0] == 2
    assert program("pairs=img", "output=run", "shard_size=4")[0] == 0
    assert program("verify=run")[:2] == (0, "shards    3 of 3 done, 0 damaged\n")
    assert program("pack=run")[:2] == (0, "packed    run/packed.h5\n")
    assert program("pack=run", "x=1")[0] == 2
    shard = find_shards(tmp_path / "run" / "shards")[1].path
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    code, out, err = program("verify=run")
    assert (code, out) == (4, "shards    3 of 3 done, 1 damaged\n")
    assert "E402" in err
    assert program("pack=run")[0] == 4
    before = (tmp_path / "run" / "packed.h5").read_bytes()
    shard.unlink()
    assert program("pack=run")[0] == 2
    code, out, err = program("verify=run")
    assert (code, out) == (2, "shards    2 of 3 done, 0 damaged\n")
    assert "E208 run: 1 of 3 shards are not done" in err
    assert program("pairs=img", "output=run", "shard_size=4", "export=pack")[0] == 0
    assert (tmp_path / "run" / "packed.h5").read_bytes() == before


def test_wrong_words_exit_2_before_anything_is_made(
    program: Callable[..., Outcome], tmp_path: Path
) -> None:
    for word in ("thresold=1", "threshold=2", "window=0", "window=3", "export=colmat",
                 "engine=cloud", "batch_size=0", "merge=0", "shard_size=2000", "against=",
                 "K=[1,2]", "hydra.x=1", "skip_missing=3", "nonsense", "top_k=${x}",
                 "device=tpu", "K=[9,9,4,4]", "cameras=exif", "model=sparse",
                 "converged_only=true"):  # fmt: skip
        code, _, err = program("pairs=img", word, "output=run")
        assert (code, err.count("\n")) == (2, 1), (word, err)
    for words in (("against=img", "select=sequential"),
                  ("export=hloc", "converged_only=true", "refine=none")):  # fmt: skip
        code, _, err = program("pairs=img", *words, "output=run")
        assert (code, err.count("\n")) == (2, 1), (words, err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["img"]
    assert match.main(["pairs=", "--help"]) == 0


def test_the_room_on_the_disk_is_known_for_every_export() -> None:
    assert set(get_args(annotations_of(CollectionOptions)["export"])) == set(EXPORT_SIZE)


def shard_matcher(weights: str, folder: Path, names: list[str], cache: int) -> ShardMatcher:
    predictor = load_matcher(weights, device="cpu")
    features = ImageFeatures(predictor, lambda i: str(folder / names[i]), cache_bytes=cache)
    return ShardMatcher(predictor, features, batch_size=3)


def test_the_backbone_runs_once_per_image(weights: str, tmp_path: Path) -> None:
    names = write_images(tmp_path, 8)
    pairs = np.array([(i, j) for i in range(8) for j in range(i + 1, 8)], np.int32)
    shards = {}
    for cache in (10**9, 0):
        matcher = shard_matcher(weights, tmp_path, names, cache)
        shards[cache] = matcher.match((pairs, np.zeros(len(pairs), bool)))
        assert matcher.features.extractions == (8 if cache else 2 * len(pairs))
        matcher.features.close()
    for name in ("status", "count", "keypoints0", "keypoints1", "scores"):
        assert (getattr(shards[0], name) == getattr(shards[10**9], name)).all()
    assert shards[0].count.min() > 0


def starve(monkeypatch: pytest.MonkeyPatch, matcher: ShardMatcher, error: Exception) -> list[int]:
    """Memory is for two pairs at most and not for the images of pair 3; the sizes of batches."""
    matched, tried = matcher._match, []

    def match(batch: list) -> list:
        tried.append(len(batch))
        if len(batch) > 2 or any(list(images) == [1, 2] for images, _ in batch):
            raise error
        return matched(batch)

    monkeypatch.setattr(matcher, "_match", match)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_a_pair_fails_by_name(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    names = write_images(tmp_path, 8)[::2]
    pairs = np.array([(i, j) for i in range(4) for j in range(i + 1, 4)], np.int32)
    task = pairs, np.zeros(6, bool)
    matcher = shard_matcher(weights, tmp_path, names, 10**9)
    matcher.batch_size = 6
    expected = matcher.match(task)
    tried = starve(monkeypatch, matcher, error)
    found = matcher.match(task)
    assert tried == [6, 3, 1, 2, 3, 1, 2]
    assert found.status.tolist() == [0, 0, 0, 131, 0, 0]
    assert status_text(131) == "failed:E131"
    kept = np.repeat(np.arange(6) != 3, expected.count)
    np.testing.assert_allclose(found.keypoints0, expected.keypoints0[kept], atol=1e-3)
    matcher.features.close()


def test_other_errors_of_the_network_are_not_taken_for_memory(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher = shard_matcher(weights, tmp_path, write_images(tmp_path, 8), 10**9)
    starve(monkeypatch, matcher, RuntimeError("sizes do not fit"))
    with pytest.raises(RuntimeError, match="do not fit"):
        matcher.match((np.array([(1, 2)], np.int32), np.zeros(1, bool)))
    matcher.features.close()


def test_an_image_that_does_not_fit_fails_by_name(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(image: int) -> object:
        raise MemoryError

    matcher = shard_matcher(weights, tmp_path, write_images(tmp_path, 2), 10**9)
    monkeypatch.setattr(matcher.features, "_read", read)
    assert matcher.match((np.array([(0, 1)], np.int32), np.zeros(1, bool))).status == [131]
    matcher.features.close()


def test_the_feature_cache_is_bounded(weights: str, tmp_path: Path) -> None:
    names = write_images(tmp_path, 6)
    matcher = shard_matcher(weights, tmp_path, names, 10**9)
    features = matcher.features
    with torch.inference_mode():
        for i in range(6):
            features.features(i)
        everything = features._kept_bytes
        assert everything == sum(kept.nbytes for kept in features._kept.values()) > 0
        features.cache_bytes = everything // 2
        features._kept.clear()
        features._kept_bytes = 0
        for i in range(6):
            features.features(i)
            assert features._kept_bytes <= everything // 2
    assert 5 in features._kept
    assert 0 not in features._kept
    features.close()


def test_a_lock_is_told_apart_from_other_refusals(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="E401"), locked(tmp_path / "file" / "run"):
        pass
    with pytest.raises(UsageError, match="E111"):
        open_run(tmp_path)


KEY = "0" * 64


def hostile(kind: str, folder: Path) -> bytes:
    """A shard whose scores lie elsewhere or are not what they seem."""
    (folder / "secret").write_bytes(b"s" * 4096)
    path = folder / "hostile.h5"
    with h5py.File(path, "w") as file:
        file.attrs["schema"], file.attrs["number"], file.attrs["key"] = "quadmatch-shard/2", 0, KEY
        file["status"], file["count"] = np.zeros(1, np.uint16), np.ones(1, np.uint32)
        for name in ("keypoints0", "keypoints1"):
            file[name] = np.zeros((1, 2), np.float32)
        if kind == "link":
            file["scores"] = h5py.ExternalLink(str(folder / "secret"), "x")
        elif kind == "soft loop":
            file["scores"] = h5py.SoftLink("/scores")
        elif kind == "external":
            file.create_dataset("scores", (1,), "f4", external=[(str(folder / "secret"), 0, 4)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout((1,), "f4")
            layout[:] = h5py.VirtualSource(str(folder / "secret"), "x", (1,))
            file.create_virtual_dataset("scores", layout)
        elif kind == "huge":
            file.create_dataset("scores", (20 * 10**9,), "f4", chunks=(1024,))
        elif kind == "kind":
            file["scores"] = np.array([b"x"])
        else:
            file["scores"] = np.zeros(2, np.float32)
    return path.read_bytes()


@pytest.mark.parametrize(
    "kind", ["link", "soft loop", "external", "virtual", "huge", "kind", "count"]
)
def test_hostile_shards_are_refused(tmp_path: Path, kind: str) -> None:
    data = hostile(kind, tmp_path)
    path = tmp_path / shard_name(data, 0, KEY)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="E402"):
        read_shard(path, KEY, 1)


def test_no_damaged_byte_goes_unnoticed(tmp_path: Path) -> None:
    run = stub_run(tmp_path, count=20, shard_size=20)
    run_local(run, Stub().match, lambda shard: None)
    path = run.done()[0]
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(data), 200):
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        assert len(verify(run)) == 1
    path.write_bytes(data[: len(data) // 2])
    assert len(verify(run)) == 1
    path.write_bytes(data)
    assert verify(run) == []


def test_a_fault_tolerant_file_tells_of_its_error_at_the_end(tmp_path: Path) -> None:
    old = tmp_path / "x.h5"
    old.write_bytes(b"old")

    def write() -> None:
        with hdf5_published(old) as (file, disk):
            file["a"] = np.arange(10**5)
            disk.error = OSError(28, "No space left on device")
            file["b"] = np.arange(10**6)

    with pytest.raises(StorageError, match=r"E401 .*No space"):
        write()
    assert old.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(tmp_path: Path) -> None:
    screen, plain = Terminal(), StringIO()
    for stream in (screen, plain):
        progress = Progress(100, 40, tmp_path / "log", stream)
        progress.advance(30)
        progress.advance(30)
        progress.close()
    assert "100/100" in screen.getvalue()
    assert "pair/s" in screen.getvalue()
    assert "40/100" in screen.getvalue()
    assert plain.getvalue().startswith("100 of 100 pairs, ")
    assert plain.getvalue().endswith(" pairs/s, 0:00:00 left\n")
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 4
    assert "started with 40 of 100 pairs" in lines[0]


def run_here(words: list[str], said: Path) -> None:
    """Run match.py in this process, and end the process with its exit code."""
    catch_signals()
    with said.open("w") as stream, redirect_stderr(stream):
        code = match.main(words)
    os._exit(code)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_the_program_and_it_goes_on_later(
    tmp_path: Path,
    weights: str,
    number: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_images(tmp_path / "img", 9)
    monkeypatch.chdir(tmp_path)
    words = ["pairs=img", "shard_size=2", "batch_size=1", f"weights={weights}", "threads=1"]
    child = fork(partial(run_here, [*words, "output=run"], tmp_path / "said"))
    shards = tmp_path / "run" / "shards"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (shards.is_dir() and find_shards(shards)):
        time.sleep(0.02)
    started = time.monotonic()
    os.kill(child, number)
    ended, err = finish(child), (tmp_path / "said").read_text()
    assert ended == code, err
    assert time.monotonic() - started < 10
    assert "Traceback" not in err
    run = open_run(tmp_path / "run")
    assert 0 < len(run.done()) < run.shards
    assert verify(run) == []
    assert "stopped by" in (tmp_path / "run" / "run.log").read_text()
    if number == signal.SIGTERM:
        files = []
        for output in ("run", "whole"):
            assert match.main([*words, f"output={output}", "export=pack"]) == 0
            files.append((tmp_path / output / "packed.h5").read_bytes())
        assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_2000_pairs_keep_memory_and_files_flat(weights: str, tmp_path: Path) -> None:
    names = write_images(tmp_path, 64)
    index = np.array([(i, j) for i in range(64) for j in range(i + 1, 64)], np.int32)[:2000]
    matcher = shard_matcher(weights, tmp_path, names, 3_000_000)
    memory, files = [], []
    for start in range(0, 2000, 20):
        task = index[start : start + 20], np.zeros(20, bool)
        assert isinstance(matcher.match(task), Shard)
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        memory.append(resident)
        files.append(len(os.listdir("/proc/self/fd")))
    pairs = np.arange(len(memory[10:])) * 20
    assert np.polyfit(pairs, memory[10:], 1)[0] < 5000
    assert len(set(files[10:])) == 1
    matcher.features.close()


def test_tasks_follow_the_list(tmp_path: Path) -> None:
    run = stub_run(tmp_path, count=20, shard_size=8)
    pairs, duplicate = task_of(run, 1)
    assert (pairs == run.pairs.index[8:16]).all()
    assert duplicate.tolist() == [False, True, *[False] * 6]
    assert len(task_of(run, 2)[0]) == 4
