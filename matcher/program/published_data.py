"""Published benchmarks: what to fetch, whether what lies there is whole, and where eval wants it.

usage: quadmatch data NAME [root=FOLDER] [fetch=true]

  NAME    megadepth1500, scannet1500 or hpatches
  root    folder of the data; default datasets/NAME, where `python -m eval benchmark=NAME` of a
          checkout looks for it under the names megadepth, scannet and hpatches
  fetch   true: download what is missing; without it nothing is ever fetched

An archive that lies in the folder, whoever put it there, is checked and unpacked.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from matcher.errors import Code, StorageError, UsageError, unwritable
from matcher.files import only_writer, sha256_of, write_atomically
from matcher.terminal.program import program, tell
from matcher.validation.checked import Name, checked
from matcher.validation.words import options_from_words


@dataclass(frozen=True)
class Dataset:
    """One published benchmark in one archive."""

    folder: str
    """Below datasets/"""
    url: str
    size: str
    """What is publicly said of its size"""
    inside: str
    """The folder in the archive that becomes the folder of the data"""
    files: dict[str, int]
    """How many files, by pattern, must lie in the folder"""
    note: str = ""

    @property
    def archive(self) -> str:
        return self.url.rpartition("/")[2]


_CVG = "https://cvg-data.inf.ethz.ch/"
_VBALNT = "https://huggingface.co/datasets/vbalnt/hpatches/resolve/main/"
DATASETS = {
    "megadepth1500": Dataset(
        "megadepth",
        f"{_CVG}megadepth/megadepth1500.zip",
        "about 1.5 GB unpacked, as glue-factory says",
        "megadepth1500",
        {"pairs_calibrated.txt": 1, "images/**/*.jpg": 1},
        "The layout of glue-factory. LoFTR's own, of the same pairs, works as well.",
    ),
    "scannet1500": Dataset(
        "scannet",
        f"{_CVG}scannet/scannet1500.zip",
        "unknown",
        "scannet1500",
        {"pairs_calibrated.txt": 1, "**/*.jpg": 1},
        "Its terms of use ask for an agreement with the authors of ScanNet first.",
    ),
    "hpatches": Dataset(
        "hpatches",
        f"{_VBALNT}hpatches-sequences-release.zip",
        "1.28 GB, as others who fetched it say",
        "hpatches-sequences-release",
        {"[iv]_*/[1-6].ppm": 116 * 6, "[iv]_*/H_1_[2-6]": 116 * 5},
        "116 sequences, of which evaluations leave out the eight with large images.",
    ),
}
"""No source states a SHA-256 of these archives: that of the first one that unpacks is kept beside
it and required of every later one."""


@checked()
class DataOptions:
    """What `quadmatch data` is told besides the name."""

    root: Name | None = None
    fetch: bool = False


@program(__doc__, needs_words=True)
def main(words: list[str]) -> int:
    """Run the program; returns its exit code."""
    name, *rest = words
    if name not in DATASETS:
        raise UsageError(Code.REFUSED_WORD, name, "no such data", f"known: {', '.join(DATASETS)}")
    options = options_from_words(DataOptions, rest)
    data = DATASETS[name]
    root = Path(options.root or f"datasets/{data.folder}")
    tell(f"data      {name}, into {root}", f"archive   {data.url}", f"size      {data.size}")
    if data.note:
        tell(f"note      {data.note}")
    if not missing_files(data, root):
        return told_complete(name, data, root)
    archive = root / data.archive
    if not archive.is_file() and not options.fetch:
        tell(f"missing   put {data.archive} into {root}, or repeat with fetch=true")
        return 0
    with only_writer(root, "wait for it"):
        if not archive.is_file():
            fetch(data, archive)
        unpack(data, archive, root)
    if lacking := missing_files(data, root):
        raise StorageError(Code.DAMAGED_RESULT, archive, f"lacks {lacking}", "fetch it again")
    return told_complete(name, data, root)


def told_complete(name: str, data: Dataset, root: Path) -> int:
    """Say what lies there and how it is evaluated."""
    for pattern in data.files:
        tell(f"found     {len(list(root.glob(pattern)))} of {pattern}")
    tell(f"next      python -m eval benchmark={name} root={root}")
    return 0


def missing_files(data: Dataset, root: Path) -> str:
    """What the folder lacks; empty where it lacks nothing."""
    lacking = [
        f"{pattern} ({found} of {count})"
        for pattern, count in data.files.items()
        if (found := len(list(root.glob(pattern)))) < count
    ]
    return ", ".join(lacking)


def fetch(data: Dataset, archive: Path) -> None:
    """Download the archive; errors as `matcher.weights.download.download`."""
    from matcher.weights.download import download

    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(archive.parent, error) from error
    download([data.url], archive, sha256=known_sum(archive))


def known_sum(archive: Path) -> str | None:
    """The SHA-256 of the archive that was unpacked before; None: none was."""
    beside = archive.with_name(f"{archive.name}.sha256")
    return beside.read_text(encoding="ascii").strip() if beside.is_file() else None


def unpack(data: Dataset, archive: Path, root: Path) -> None:
    """Unpack the archive into `root`, with its inner folder taken off.

    Raises:
        CheckpointError: it is another file than the one that was unpacked before (E503).
        StorageError: damaged, or with names that lead out of it (E402); or the folder cannot be
            written (E401).
    """
    from matcher.weights.download import require_sha256

    require_sha256(archive, known_sum(archive))
    staging = root / f".{data.archive}.unpacked"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        extract(archive, staging)
        inner = staging / data.inside
        source = inner if inner.is_dir() else staging
        for path in sorted(each for each in source.rglob("*") if each.is_file()):
            target = root / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
        raise StorageError(Code.DAMAGED_RESULT, archive, str(error), "fetch it again") from error
    except OSError as error:
        raise unwritable(root, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    digest = sha256_of(archive)
    write_atomically(archive.with_name(f"{archive.name}.sha256"), digest.encode())
    tell(f"sha256    {digest}")


def extract(archive: Path, target: Path) -> None:
    """All files of a .zip or .tar.gz below `target`; ValueError for a name that leads out."""
    if not zipfile.is_zipfile(archive):
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        return
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            path = Path(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"holds {name!r}, which leads out of it")
        file.extractall(target)


if __name__ == "__main__":
    sys.exit(main())
