"""Memory that ends while an image is read is told as such: no image is called damaged for it."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher.errors import ImageError, MatcherError, MemoryLimitError, out_of_memory
from matcher.images import opening, preprocess
from matcher.images.load import load_image, read_rgb
from matcher.images.opening import reading
from matcher.images.preprocess import PairReader
from tests.helpers.image_files import picture
from tests.helpers.models import COMPACT_TINY

ROOT = Path(__file__).resolve().parents[2]
READER = PairReader(COMPACT_TINY, None)
MEGABYTES = (4, 12, 24, 40, 64)


def with_memory(megabytes: int, run: Callable[[], object]) -> int:
    """Code of the error of `run` in a process that may take so much more memory; 0: none."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            found = re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())
            limit = int(found[1]) * 1024 + megabytes * 2**20 if found else -1
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            run()
            code = 0
        except MatcherError as error:
            code = int(error.code)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


FORMATS: dict[str, dict] = {
    "a.png": {}, "a.jpg": {}, "a.webp": {}, "a.tif": {}, "a.jp2": {},
    "b.tif": {"compression": "tiff_lzw"}, "a.avif": {"speed": 10},
}  # fmt: skip


def codes_of(folder: Path, name: str) -> list[int]:
    """Of reading an image of a name within each of `MEGABYTES`."""
    pixels, path = picture().repeat(30, axis=0).repeat(30, axis=1), folder / name
    # Not here: what an encoder frees would be there for the decoder.
    saved = with_memory(2000, lambda: Image.fromarray(pixels).save(path, **FORMATS[name]))
    return [saved, *(with_memory(size, lambda: READER.read_one(path)) for size in MEGABYTES)]


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """In a fresh process: one that ran other tests has memory to spare."""
    folder = tmp_path_factory.mktemp("memory")
    words = [sys.executable, "-m", "tests.images.test_memory", os.fspath(folder)]
    return json.loads(subprocess.run(words, capture_output=True, check=True, cwd=ROOT).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory that is kept")
@pytest.mark.parametrize("name", FORMATS)
def test_an_image_is_read_or_too_large_but_never_damaged(
    name: str, codes: dict[str, list[int]]
) -> None:
    saved, *read = codes[name]
    assert saved == 0
    assert set(read) <= {0, 131}
    assert 131 in read


def test_a_small_image_needs_little_memory(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")
    assert with_memory(100, lambda: load_image(tmp_path / "a.png")) == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError("out of memory error when reading image file"),
        OSError(12, "Cannot allocate memory"),
        ValueError("Unable to allocate 77.2 MiB for an array"),
        RuntimeError("(-4:Insufficient memory) Failed to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_what_libraries_say_of_memory_is_understood(error: Exception) -> None:
    assert out_of_memory(error)
    with pytest.raises(MemoryLimitError, match=r"E131 a\.jpg: out of memory"), reading("a.jpg"):
        raise error


def test_other_faults_of_a_decoder_stay_damage() -> None:
    with pytest.raises(ImageError, match=r"E102 a\.jpg: damaged .*\(no end\)"), reading("a.jpg"):
        raise OSError("no end")


def test_memory_that_ends_after_decoding_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    Image.fromarray(picture()).save(tmp_path / "a.png")
    monkeypatch.setattr(preprocess, "prepare", full)
    with pytest.raises(MemoryLimitError, match=r"E131 .*a\.png: out of memory"):
        READER.read_one(tmp_path / "a.png")
    with pytest.raises(MemoryLimitError, match="E131 image1: out of memory"):
        READER.read_one(np.zeros((40, 40), np.uint8), number="1")
    monkeypatch.setattr("matcher.images.normalize._opaque", full)
    for read in (load_image, read_rgb):
        with pytest.raises(MemoryLimitError, match=r"E131 .*a\.png: out of memory"):
            read(tmp_path / "a.png")
    assert opening.require_memory(10) is None


if __name__ == "__main__":
    sys.stdout.write(json.dumps({name: codes_of(Path(sys.argv[1]), name) for name in FORMATS}))
