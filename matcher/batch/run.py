"""The folder of a run: its manifest, its list, its shards and who writes to it.

Only the holder of the lock writes. Everything in the folder is published whole, so that readers
may look at any time. Results belong to their run by a key of all that decides them, the contents
of the images among it: where an image was repaired or a list extended, results of pairs that are
as they were stay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from matcher.batch.fingerprints import ImageFiles
from matcher.batch.manifest import WAY_BACK, Manifest, encode_list, read_list
from matcher.batch.pairs import PairList
from matcher.batch.shards import (
    DONE,
    DRAFT,
    DUPLICATE,
    PENDING,
    Shard,
    encode_shard,
    find_shards,
    read_shard,
    shard_name,
)
from matcher.errors import Code, StorageError, UsageError, missing
from matcher.files import Lock, make_folder, only_writer, write_atomically

MANIFEST, LISTS, SHARDS = "manifest.json", "pairs-*.npz", "shards"
PARTS = (".quadmatch-*.part", "*/.quadmatch-*.part", "colmap/database.db.part*")
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

    def length(self, number: int) -> int:
        """How many pairs a shard holds."""
        where = self.range(number)
        return where.stop - where.start

    @cached_property
    def keys(self) -> list[str]:
        """Fingerprint of all that decides the results of each shard."""
        settings = hashlib.sha256(json.dumps(dict(self.manifest.settings), sort_keys=True).encode())
        keys = []
        for number in range(self.shards):
            digest = settings.copy()
            digest.update(self.images.digest[self.pairs.index[self.range(number)]].tobytes())
            digest.update(self.duplicates(number).tobytes())
            keys.append(digest.hexdigest())
        return keys

    def duplicates(self, number: int) -> np.ndarray:
        """(n,) bool of the pairs of a shard that came before in the list."""
        where = self.range(number)
        return self.pairs.first[where] < np.arange(where.start, where.stop)

    def files(self, kind: str = DONE) -> dict[int, Path]:
        """The files of shards of a kind by number."""
        found = find_shards(self.folder / SHARDS, kind)
        current = {number: key[:16] for number, key in enumerate(self.keys)}
        return {file.number: file.path for file in found if current.get(file.number) == file.key}

    def done(self) -> dict[int, Path]:
        """The finished shards by number."""
        return self.files(DONE)

    def missing(self) -> list[int]:
        done = self.done()
        return [number for number in range(self.shards) if number not in done]

    def write(self, number: int, shard: Shard) -> None:
        """Publish a shard, which only the holder of the lock may: on return it is on the disk, or
        `StorageError` (E401) is raised."""
        self._write(number, shard, DONE)

    def keep(self, number: int, shard: Shard) -> Path:
        """Publish what there is of a shard, pairs pending, as `write`; the file."""
        return self._write(number, shard, DRAFT)

    def drafts(self) -> dict[int, tuple[Path, Shard]]:
        """What there is of shards that are not finished; damaged drafts do not count."""
        done = self.done()
        files = {n: path for n, path in self.files(DRAFT).items() if n not in done}
        return {n: (path, shard) for n, path, shard in self._readable(files)}

    def read(self, number: int, path: Path) -> Shard:
        """The shard in a file, as `read_shard`."""
        return read_shard(path, self.keys[number], self.length(number))

    def read_all(self) -> Iterator[tuple[int, Shard]]:
        """All shards in order, with their numbers.

        Raises:
            UsageError: the run is not finished (E208).
            StorageError: a shard is damaged (E402).
        """
        done = self.done()
        if len(done) < self.shards:
            raise self.unfinished()
        for number in range(self.shards):
            yield number, self.read(number, done[number])

    def known(self) -> Iterator[tuple[int, Path, Shard]]:
        """Shards and drafts that can be read, with their numbers and files."""
        yield from ((number, *draft) for number, draft in self.drafts().items())
        yield from self._readable(self.done())

    def tidy(self) -> None:
        """Remove results that are not of this run any more, and drafts of finished shards."""
        done = self.done()
        drafts = {path for number, path in self.files(DRAFT).items() if number not in done}
        for kind, current in ((DONE, {*done.values()}), (DRAFT, drafts)):
            for file in find_shards(self.folder / SHARDS, kind):
                if file.path not in current:
                    file.path.unlink(missing_ok=True)
        for path in self.folder.glob(LISTS):
            if path.name != self.manifest.list_name:
                path.unlink(missing_ok=True)

    def _readable(self, files: Mapping[int, Path]) -> Iterator[tuple[int, Path, Shard]]:
        for number, path in files.items():
            try:
                yield number, path, self.read(number, path)
            except StorageError:
                continue

    def unfinished(self) -> UsageError:
        """The error for a run that is not finished (E208)."""
        what = f"{len(self.missing())} of {self.shards} shards are not done"
        return UsageError(Code.UNFINISHED_RUN, self.folder, what, "run it to its end first")

    def _write(self, number: int, shard: Shard, kind: str) -> Path:
        key = self.keys[number]
        data = encode_shard(shard, number, key)
        path = self.folder / SHARDS / shard_name(data, number, key, kind)
        write_atomically(path, data)
        return path


def start_run(
    folder: Path, manifest: Manifest, pairs: PairList, images: ImageFiles, *, retry: bool = False
) -> Run:
    """Begin a run, or go on with the one in `folder`; the caller holds its lock.

    Args:
        pairs: of a run that goes on the same pairs in the same order, and perhaps more.
        images: results of images that are other ones now are dropped.
        retry: drop the results of pairs that failed.

    Raises:
        UsageError: `folder` holds a run with other settings (E206), or one that another process
            changed meanwhile (E207).
        StorageError: it cannot be written (E401), or the run in it is damaged (E402).
    """
    make_folder(folder / SHARDS)
    run = Run(folder, manifest, pairs, images)
    before = open_run(folder) if has_run(folder) else None
    if before is not None:
        before.manifest.require_same_settings(manifest, folder)
        _carry_over(before, run)
    if before is None or before.manifest != manifest:
        # The manifest last: with it, the run has begun, or begun to be another.
        write_atomically(folder / manifest.list_name, encode_list(pairs, images))
        write_atomically(folder / MANIFEST, manifest.encode())
    if retry:
        _reopen_failed(run)
    run.tidy()
    return run


def has_run(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def open_run(folder: Path) -> Run:
    """The run in a folder, to read; `UsageError` (E111) if there is none, `StorageError` (E402) if
    it is damaged."""
    if not has_run(folder):
        raise missing(folder, "holds no run", "give the output folder of one")
    manifest = Manifest.read(folder / MANIFEST)
    path = folder / manifest.list_name
    pairs, images = read_list(path)
    if Manifest.of(pairs, images, manifest.shard_size, manifest.settings) != manifest:
        what = "is not the list of the manifest"
        raise StorageError(Code.DAMAGED_RESULT, path, what, WAY_BACK)
    return Run(folder, manifest, pairs, images)


def _carry_over(before: Run, now: Run) -> None:
    """Keep what holds of results whose keys change: those of pairs of unchanged images."""
    count = len(before.pairs)
    names = before.pairs.names
    if names != now.pairs.names[: len(names)] or not np.array_equal(
        before.pairs.index, now.pairs.index[:count]
    ):
        what = "another process gave it another list meanwhile"
        raise UsageError(Code.FOLDER_IN_USE, now.folder, what, "run again")
    same = ~before.images.differs(ImageFiles(now.images.digest[: len(names)]))
    same_pairs = np.asarray(same[before.pairs.index].all(axis=1))
    for number, _, shard in before.known():
        if before.keys[number] != now.keys[number]:
            _reopen(now, number, shard, ~same_pairs[before.range(number)])


def _reopen_failed(run: Run) -> None:
    """Have pairs that failed matched again."""
    for number, path, shard in run.known():
        failed = shard.status > PENDING
        if failed.any():
            _reopen(run, number, shard, failed)
            path.unlink()


def _reopen(run: Run, number: int, shard: Shard, pending: np.ndarray) -> None:
    """Keep a shard as a draft of the run, without the results of some pairs and with those that
    are new in its range."""
    results = [PENDING if p else r for r, p in zip(shard.results(), pending, strict=True)]
    results += [PENDING] * (run.length(number) - len(results))
    kept = Shard.of(results)
    if (kept.status < DUPLICATE).any():
        run.keep(number, kept)


def clear_leftovers(folder: Path) -> None:
    """Remove what processes that were killed left in the folder of a run; the caller holds its
    lock."""
    if has_run(folder):
        for pattern in PARTS:
            for part in folder.glob(pattern):
                part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, lock: Lock = "system") -> Iterator[None]:
    """Be the only writer of a run; what a killed one left is removed. Raises as `only_writer`."""
    with only_writer(folder, "wait or use another output", LOCK_SECONDS, lock):
        clear_leftovers(folder)
        yield
