"""The folder of a run: its manifest, its list, its shards and who writes to it.

Only the holder of the lock writes. Everything in the folder is published whole, so that readers
may look at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from matcher.batch.manifest import ImageFiles, Manifest, encode_list, read_list
from matcher.batch.pairs import PairList
from matcher.batch.shards import Shard, encode_shard, find_shards, read_shard, shard_name
from matcher.errors import Code, StorageError, UsageError, missing
from matcher.files import make_folder, write_atomically

MANIFEST, LIST, SHARDS, LOCK, HOLDER = "manifest.json", "pairs.npz", "shards", "lock", "lock.pid"
LOCK_SECONDS = 0.5


@dataclass(frozen=True)
class Run:
    """A run that was started, perhaps finished."""

    folder: Path
    manifest: Manifest
    pairs: PairList
    images: ImageFiles

    @property
    def shards(self) -> int:
        """Their number when all is done."""
        return -(-len(self.pairs) // self.manifest.shard_size)

    def range(self, number: int) -> slice:
        """The pairs of a shard."""
        size = self.manifest.shard_size
        return slice(number * size, min((number + 1) * size, len(self.pairs)))

    def duplicates(self, number: int) -> np.ndarray:
        """(n,) bool of the pairs of a shard that came before in the list."""
        where = self.range(number)
        return self.pairs.first[where] < np.arange(where.start, where.stop)

    def done(self) -> dict[int, Path]:
        """The finished shards by number."""
        return {n: p for n, p in find_shards(self.folder / SHARDS).items() if n < self.shards}

    def missing(self) -> list[int]:
        done = self.done()
        return [number for number in range(self.shards) if number not in done]

    def write(self, number: int, shard: Shard) -> None:
        """Publish a shard, which only the holder of the lock may: on return it is on the disk, or
        `StorageError` (E401) is raised."""
        data = encode_shard(shard, number, self.manifest.sha256)
        write_atomically(self.folder / SHARDS / shard_name(data, number), data)

    def read(self, number: int, path: Path) -> Shard:
        """The shard in a file, as `read_shard`."""
        where = self.range(number)
        return read_shard(path, self.manifest.sha256, where.stop - where.start)

    def read_all(self) -> Iterator[tuple[int, Shard]]:
        """All shards in order, with their numbers.

        Raises:
            UsageError: the run is not finished (E208).
            StorageError: a shard is damaged (E402).
        """
        done = self.done()
        if len(done) < self.shards:
            what = f"{self.shards - len(done)} of {self.shards} shards are not done"
            raise UsageError(Code.UNFINISHED_RUN, self.folder, what, "run it to its end first")
        for number in range(self.shards):
            yield number, self.read(number, done[number])


def start_run(folder: Path, manifest: Manifest, pairs: PairList, images: ImageFiles) -> Run:
    """Begin a run, or go on with the one in `folder`; the caller holds its lock.

    Raises:
        UsageError: `folder` holds a run with other settings (E206).
        StorageError: it cannot be written (E401), or the run in it is damaged (E402).
    """
    if (folder / MANIFEST).exists():
        run = open_run(folder)
        changed: list[str] = []
        same_list = run.manifest.pairs_sha256 == manifest.pairs_sha256
        if same_list and run.manifest.images_sha256 != manifest.images_sha256:
            changed = [pairs.names[i] for i in np.flatnonzero(run.images.differs(images))]
        run.manifest.require_same(manifest, folder, changed)
        return run
    make_folder(folder / SHARDS)
    # The manifest last: with it, the run has begun.
    write_atomically(folder / LIST, encode_list(pairs, images))
    write_atomically(folder / MANIFEST, manifest.encode())
    return Run(folder, manifest, pairs, images)


def open_run(folder: Path) -> Run:
    """The run in a folder, to read; `UsageError` (E111) if there is none, `StorageError` (E402) if
    it is damaged."""
    if not (folder / MANIFEST).is_file():
        raise missing(folder, "holds no run", "give the output folder of one")
    manifest = Manifest.read(folder / MANIFEST)
    pairs, images = read_list(folder / LIST)
    if (pairs.sha256, images.sha256) != (manifest.pairs_sha256, manifest.images_sha256):
        raise StorageError(Code.DAMAGED_RESULT, folder / LIST, "is not the list of the manifest")
    return Run(folder, manifest, pairs, images)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of a run. The lock goes with the process, however that ends.

    Raises:
        UsageError: another process writes to it (E207).
        StorageError: the folder cannot be written (E401).
    """
    make_folder(folder)
    lock = FileLock(folder / LOCK, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        what = f"another process writes to it{_holder(folder)}"
        raise UsageError(Code.FOLDER_IN_USE, folder, what, "wait or use another output") from None
    except OSError as error:
        what = f"cannot be locked: {error.strerror}"
        raise StorageError(Code.UNWRITABLE, folder, what) from error
    try:
        write_atomically(folder / HOLDER, str(os.getpid()).encode())
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        return f" (process {int((folder / HOLDER).read_text())})"
    except (OSError, ValueError):
        return ""
