"""The same collection on a local Ray cluster of two workers, one of which is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import match
from matcher.batch.run import open_run
from matcher.network.model import build_matcher
from matcher.weights.checkpoint import save_safetensors
from tests.helpers.models import PUBLISHED_TINY


def descendants(pid: int) -> list[int]:
    """Processes below `pid`."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
            except (OSError, IndexError, ValueError):
                continue
    found, front = [], {pid}
    while front:
        front = {child for child, parent in parents.items() if parent in front}
        found.extend(front)
    return found


def workers() -> list[int]:
    """Our own processes that hold a model."""
    out = []
    for pid in descendants(os.getpid()):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::") and b"Worker" in title:
            out.append(pid)
    return out


def matches(folder: Path) -> list[np.ndarray]:
    with h5py.File(folder / "packed.h5") as file:
        arrays = {name: np.asarray(file[name]) for name in ("start", "keypoints0", "keypoints1")}
    both = np.hstack([arrays["keypoints0"], arrays["keypoints1"]])
    return np.split(both, arrays["start"][1:-1].astype(int))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ray_workers_one_killed_give_the_local_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="extra ray is not installed")
    monkeypatch.chdir(tmp_path)
    # Ray's workers are nice by default: on a busy machine they would hardly run at all.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    torch.manual_seed(0)
    save_safetensors(build_matcher(PUBLISHED_TINY), tmp_path / "tiny.safetensors")
    rng = np.random.default_rng(3)
    (tmp_path / "img").mkdir()
    for i in range(16):
        small = Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8))
        small.resize((320, 224), Image.Resampling.BICUBIC).save(tmp_path / "img" / f"{i:02d}.png")
    words = ["pairs=img", "weights=tiny.safetensors", "export=pack", "shard_size=4"]
    assert match.main([*words, "output=local"]) == 0
    killed: list[int] = []

    def kill_one() -> None:
        shards = tmp_path / "cluster" / "shards"
        while not (shards.is_dir() and len(list(shards.glob("*.h5"))) >= 3):
            time.sleep(0.02)
        victim = workers()[0]
        os.kill(victim, signal.SIGKILL)
        killed.append(len(list(shards.glob("*.h5"))))

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert match.main([*words, "output=cluster", "engine=ray", "workers=2", "threads=1"]) == 0
    killer.join()
    run = open_run(tmp_path / "cluster")
    assert killed[0] < run.shards == len(run.done())
    assert sum(map(len, matches(tmp_path / "local"))) > 1000
    pairs = zip(matches(tmp_path / "local"), matches(tmp_path / "cluster"), strict=True)
    for local, cluster in pairs:
        assert local.shape == cluster.shape
        np.testing.assert_allclose(cluster, local, atol=1e-3)
